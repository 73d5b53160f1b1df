// SPDX-License-Identifier: MIT
//
// safetensors files: u64le H, H bytes of JSON, then one byte buffer. The reader maps the file and trusts
// nothing in it; the writer is atomic (a temporary file beside the target, fsync, rename) and deterministic.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit::io {

/// One tensor of a file. `data` points into the mapping.
struct TensorView {
  std::string dtype;                // "F32", "U8", ...
  std::vector<std::int64_t> shape;  // [] is a scalar
  std::span<const std::byte> data;  // row-major, little endian
  std::uint64_t offset = 0;         // of data in the file, for messages

  std::int64_t numel() const;
};

/// A mapped safetensors file.
class SafetensorsFile {
 public:
  /// Throws trit::Error, with the file's name and the offset, for anything malformed: a header longer than
  /// 100 MB or the file, invalid JSON or UTF-8, duplicate keys, unknown dtypes, sizes that overflow or differ
  /// from the shape, ranges that overlap, leave holes or end outside the buffer.
  static SafetensorsFile open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::filesystem::path& path() const;
  /// Bytes of the whole file.
  std::uint64_t size() const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const;
  const std::map<std::string, std::string, std::less<>>& metadata() const;
  /// The tensor, or Error that names the file and what is missing.
  const TensorView& at(std::string_view name) const;
  bool contains(std::string_view name) const;

 private:
  struct State;
  explicit SafetensorsFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// A tensor to write. `data` must stay valid until save_safetensors returns.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Checks the contents against the metadata "trit.crc32c": CRC-32C, as 8 hexadecimal digits, of the other
/// metadata entries (key, value) by key, then of the tensors (name, dtype, shape as "[512, 1024]", data) by
/// name; a zero byte follows every text. A file without that entry passes. Throws trit::Error for a
/// difference.
void verify_checksum(const SafetensorsFile& file);

/// Writes atomically: the target is either as it was or whole. Throws trit::Error (full disk, no permission,
/// duplicate or empty names, sizes that do not fit the shape). A file in the stored form (metadata
/// "trit.layout") gets the metadata "trit.crc32c", see verify_checksum.
void save_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                      const std::map<std::string, std::string, std::less<>>& metadata);

/// Writes `bytes` to `path` atomically (temporary file beside it, fsync, rename, fsync of the folder).
void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> parts);

}  // namespace trit::io

TRIT_EXPORT_END

// SPDX-License-Identifier: MIT
//
// A safetensors file written tensor by tensor: the header is known before any data, so that a model larger
// than the memory can be written. Tensors are ordered by descending element size, then by name: with the data
// starting on a multiple of 8, every tensor is aligned to its element. The same tensors give the same bytes,
// in whatever order they are named.
//
// A file in the stored form (metadata "trit.layout") gets the metadata "trit.crc32c"
// (checksum.h). It covers the data, which come after the header: the header is written with
// zeros in its place, which commit() replaces.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"

namespace trit::io {

/// A tensor to come.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

class SafetensorsStream {
 public:
  /// Writes the header. Throws trit::Error: a name that is empty, given twice, "__metadata__", no UTF-8 or
  /// has a NUL; an unknown dtype; a shape of more than 2^63 bytes; a header that readers would refuse.
  SafetensorsStream(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                    const std::map<std::string, std::string, std::less<>>& metadata);

  /// Indexes into `entries`, in the order in which their data must be written.
  std::span<const std::size_t> order() const { return order_; }
  /// The next bytes of the data.
  void write(std::span<const std::byte> bytes);
  /// Throws trit::Error unless every tensor has been written.
  void commit();

 private:
  /// What is known of a tensor's data, in the order of writing.
  struct Written {
    std::uint64_t end = 0;  // in the file
    std::uint32_t crc = 0;
  };
  std::string checksum() const;

  AtomicFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string, std::less<>> metadata_;
  std::vector<std::size_t> order_;
  std::uint64_t data_begin_ = 0;
  std::uint64_t checksum_offset_ = 0;  // of the 8 digits in the file; 0 for a file without
  std::vector<Written> written_;
  std::size_t current_ = 0;  // index into written_
};

}  // namespace trit::io

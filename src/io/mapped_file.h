// SPDX-License-Identifier: MIT
//
// A regular file, mapped read-only. The mapping is private, so pages that were read do not show later
// writes. A file that is truncated while it is mapped raises SIGBUS, as with every mapping.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "trit/error.h"

namespace trit::io {

class MappedFile {
 public:
  /// Throws trit::Error that names the file: missing, a folder, not a regular file, not readable.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;  // null for an empty file
  std::size_t size_ = 0;
};

/// Releases the whole pages of `bytes`, a part of a MappedFile, from this process's memory. The next access
/// reads them again.
void release_pages(std::span<const std::byte> bytes);

/// The text of a file of at most `max_bytes`. Throws trit::Error.
inline std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const MappedFile file(path);
  if (file.bytes().size() > max_bytes) {
    throw Error(path.string() + ": " + std::to_string(file.bytes().size()) + " bytes, wanted at most " +
                std::to_string(max_bytes));
  }
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace trit::io

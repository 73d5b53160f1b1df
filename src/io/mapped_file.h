// SPDX-License-Identifier: MIT
//
// A regular file, mapped read-only. The mapping is private: it does not follow later writes to pages that
// were read, but a file that is truncated while mapped raises SIGBUS, as with every mapping.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

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

/// Takes the whole pages of `bytes`, a part of a MappedFile, out of this process's memory; they are read
/// again when they are touched again.
void release_pages(std::span<const std::byte> bytes);

}  // namespace trit::io

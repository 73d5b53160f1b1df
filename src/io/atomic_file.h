// SPDX-License-Identifier: MIT
//
// A file that appears whole or not at all.
//   1. a temporary file beside the target (rename works within one file system only), named with this
//   process's
//      id and a counter, so that two writers of one target never share it
//   2. write, fsync, close: a full disk shows at any of the three
//   3. rename over the target, then fsync of the folder, so that the new name survives a power cut
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "io/file_descriptor.h"

namespace trit::io {

class AtomicFile {
 public:
  /// Opens the temporary file. Throws trit::Error (no permission; the target is a folder or a device).
  explicit AtomicFile(const std::filesystem::path& target);
  /// Removes the temporary file unless commit() was reached.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::filesystem::path& target() const { return target_; }
  /// Bytes written so far.
  std::uint64_t size() const { return size_; }
  /// Appends. Throws trit::Error (a full disk).
  void write(std::span<const std::byte> bytes);
  /// Replaces bytes that were written.
  void rewrite(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Makes the target this file. Throws trit::Error; then the target is as it was.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty once renamed
  FileDescriptor descriptor_{-1};
  std::uint64_t size_ = 0;
  std::uint64_t flushed_ = 0;  // bytes whose way to the disk has been started
};

/// fsync of the folder that holds `path`.
void sync_folder_of(const std::filesystem::path& path);

}  // namespace trit::io

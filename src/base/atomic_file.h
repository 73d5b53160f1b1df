// SPDX-License-Identifier: MIT
//
// A file that appears complete or not at all.
//   1. Create a temporary file beside the target, since rename works within one file system only. Its
//      name has this process's id and a counter, so that two writers of one target never share it.
//   2. Write, fsync, close: a full disk can show at any of the three.
//   3. Rename it over the target, then fsync the folder, so that the new name survives a power cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/file_descriptor.h"

namespace trit {

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

}  // namespace trit

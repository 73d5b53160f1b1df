// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

namespace trit::io {

/// A folder that appears whole or not at all: files are written to a temporary one beside it, which is
/// renamed at the end. The target must not exist, or be an empty folder.
class AtomicFolder {
 public:
  /// Throws trit::Error if the target is something else.
  explicit AtomicFolder(const std::filesystem::path& target);
  /// Removes the temporary folder unless commit() was reached.
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  /// Where to write.
  const std::filesystem::path& folder() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty once renamed
};

}  // namespace trit::io

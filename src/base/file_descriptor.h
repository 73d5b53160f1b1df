// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

namespace trit {

/// An open file, closed on scope exit.
class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return value_; }
  bool valid() const { return value_ >= 0; }
  /// Closes the file and takes another.
  void reset(int value) {
    close();
    value_ = value;
  }
  /// What close(2) returns: some file systems report a full disk only here.
  int close() {
    const int descriptor = value_;
    value_ = -1;
    return descriptor < 0 ? 0 : ::close(descriptor);
  }

 private:
  int value_;
};

}  // namespace trit

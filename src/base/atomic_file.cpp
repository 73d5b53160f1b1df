// SPDX-License-Identifier: MIT
#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>

#include "trit/error.h"

namespace trit {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& doing, int error,
                       const std::string& more = "") {
  throw Error(path.string() + ": " + doing + ": " + std::generic_category().message(error) + more);
}

/// After how many bytes a full disk, a quota or a limit on file sizes was met, and what would help.
std::string room(int error, std::uint64_t written) {
  return error == ENOSPC || error == EDQUOT || error == EFBIG
             ? " (after " + std::to_string(written) + " bytes; free some space, or write to another place)"
             : "";
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(target) {
  struct stat status {};
  const bool exists = ::stat(target.c_str(), &status) == 0;
  // rename() would put a file in the place of /dev/null.
  if (exists && !S_ISREG(status.st_mode)) {
    throw Error(target.string() + ": cannot be written: it is a " +
                (S_ISDIR(status.st_mode) ? "folder" : "device, pipe or socket") +
                ", wanted a regular file or none");
  }
  static std::atomic<unsigned> counter{0};
  // A process that was killed may have left a file with our id: take the next number then.
  for (int attempt = 0; attempt < 1000 && !descriptor_.valid(); ++attempt) {
    temporary_ = target;
    temporary_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
    descriptor_.reset(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!descriptor_.valid() && errno != EEXIST) {
      break;
    }
  }
  if (!descriptor_.valid()) {
    fail(target, "cannot create the temporary file \"" + temporary_.filename().string() + "\" beside it",
         errno);
  }
  if (exists && ::fchmod(descriptor_.get(), status.st_mode & 0777) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail(target, "its permissions cannot be kept", error);
  }
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  // Linux writes at most 0x7ffff000 bytes a call; less may be written at any time (a signal, a nearly full
  // disk).
  constexpr std::size_t kMaxPerCall = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_.get(), bytes.data(), std::min(bytes.size(), kMaxPerCall));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      const int error = written < 0 ? errno : ENOSPC;
      fail(target_, "cannot be written", error, room(error, size_));
    }
    size_ += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
#if defined(__linux__)
  // The disk works while the next bytes are computed, instead of at fsync. A failure shows there.
  constexpr std::uint64_t kFlushBytes = std::uint64_t{8} << 20;
  if (size_ - flushed_ >= kFlushBytes) {
    ::sync_file_range(descriptor_.get(), static_cast<off_t>(flushed_), static_cast<off_t>(size_ - flushed_),
                      SYNC_FILE_RANGE_WRITE);
    flushed_ = size_;
  }
#endif
}

void AtomicFile::rewrite(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      fail(target_, "cannot be written", written < 0 ? errno : ENOSPC);
    }
    offset += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_.get()) != 0) {
    fail(target_, "cannot be flushed", errno);
  }
  if (descriptor_.close() != 0) {
    fail(target_, "cannot be closed", errno);
  }
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
    fail(target_, "cannot be replaced", errno);
  }
  temporary_.clear();
  sync_folder_of(target_);
}

void sync_folder_of(const std::filesystem::path& path) {
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const FileDescriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Folders that may be written but not read, and file systems without fsync of folders: nothing more can be
  // done, and the rename has happened.
  if (descriptor.valid() && ::fsync(descriptor.get()) != 0 && errno == EIO) {
    fail(path, "its folder cannot be flushed", EIO);
  }
}

}  // namespace trit

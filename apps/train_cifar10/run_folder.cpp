// SPDX-License-Identifier: MIT
#include "train_cifar10/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "trit/error.h"

namespace trit::train {
namespace {

/// Removes the temporary files of writers that were killed (io::write_file_atomically names them so).
void remove_leftovers(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code ignored;  // it costs room on the disk, no more
    if (entry.path().filename().string().find(".tmp-") != std::string::npos) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

}  // namespace

RunFolder::RunFolder(const std::filesystem::path& path, bool resume) : path_(path) {
  std::error_code failure;
  std::filesystem::create_directories(checkpoints(), failure);
  if (failure)
    throw Error(fmt::format("cannot make the folder {}: {}", checkpoints().string(), failure.message()));

  const std::string lock_path = (path_ / ".lock").string();
  lock_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw Error(fmt::format("cannot write {}: {}", lock_path, std::strerror(errno)));
  // The kernel drops the lock with its process, however that ends.
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int code = errno;
    close(lock_);
    if (code == EWOULDBLOCK) {
      throw Error(fmt::format("another process is training in {}; wait for it, or choose another --out",
                              path_.string()));
    }
    throw Error(fmt::format("cannot lock {}: {}", lock_path, std::strerror(code)));
  }
  if (resume) {
    remove_leftovers(path_);
    remove_leftovers(checkpoints());
    return;
  }
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    const bool own = entry.path().filename() == ".lock" ||
                     (entry.path() == checkpoints() && std::filesystem::is_empty(entry.path()));
    if (own) continue;
    close(lock_);
    throw Error(fmt::format("{} holds a run already ({}); go on with it by --resume, or choose another --out",
                            path_.string(), entry.path().filename().string()));
  }
}

RunFolder::~RunFolder() { close(lock_); }

}  // namespace trit::train

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

namespace fs = std::filesystem;

bool is_leftover(const fs::path& path) {
  // io::write_file_atomically names its temporary files so; a writer that was killed leaves one.
  return path.filename().string().find(".tmp-") != std::string::npos;
}

void remove_leftovers(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::error_code ignored;  // a leftover only takes space
    if (is_leftover(entry.path())) fs::remove(entry.path(), ignored);
  }
}

bool has_checkpoint(const fs::path& checkpoints) {
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(checkpoints, failure)) {
    if (!is_leftover(entry.path())) return true;
  }
  return false;
}

/// Whether a run that ended before its first checkpoint leaves such a file: nobody will miss it.
bool is_remnant(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  return is_leftover(entry.path()) || name == ".lock" ||
         (name == "checkpoints" && entry.is_directory() && !has_checkpoint(entry.path())) ||
         (name == "metrics.jsonl" && entry.is_regular_file() && entry.file_size() == 0) ||
         name.starts_with("events.out.tfevents.");
}

/// Checks that a folder is free for a new run. `begun`: a run began here and left the remnants.
void check_has_no_content(const fs::path& path, bool begun) {
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (is_remnant(entry) && (begun || name == ".lock" || name == "checkpoints")) continue;
    throw Error(fmt::format("{} already holds a run ({}); resume it with --resume, or choose another --out",
                            path.string(), name));
  }
}

void remove_remnants(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::error_code ignored;
    if (entry.is_regular_file() && entry.path().filename() != ".lock") fs::remove(entry.path(), ignored);
  }
}

void check_resumable(const fs::path& path, const fs::path& checkpoints) {
  std::error_code failure;
  const bool there = fs::exists(path, failure);
  if (there && has_checkpoint(checkpoints)) return;
  throw Error(fmt::format("no run in {} to resume: {}; without --resume a new run begins there",
                          path.string(), there ? "it has no checkpoint" : "there is no such folder"));
}

}  // namespace

RunFolder::RunFolder(const fs::path& path, bool resume) : path_(path) {
  if (resume) check_resumable(path_, checkpoints());
  std::error_code failure;
  const bool begun = fs::exists(path_ / ".lock", failure);
  if (!begun && fs::is_directory(path_, failure)) check_has_no_content(path_, begun);  // creating nothing
  fs::create_directories(checkpoints(), failure);
  if (failure)
    throw Error(fmt::format("cannot create the folder {}: {}", checkpoints().string(), failure.message()));

  const std::string lock_path = (path_ / ".lock").string();
  lock_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw Error(fmt::format("cannot write {}: {}", lock_path, std::strerror(errno)));
  // The kernel releases the lock when the process ends, in whatever way.
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
  try {
    check_has_no_content(path_, begun);
  } catch (...) {
    close(lock_);
    throw;
  }
  remove_remnants(path_);
  remove_leftovers(checkpoints());
}

RunFolder::~RunFolder() { close(lock_); }

}  // namespace trit::train

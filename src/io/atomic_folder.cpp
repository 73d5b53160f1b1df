// SPDX-License-Identifier: MIT
#include "io/atomic_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/atomic_file.h"
#include "trit/error.h"

namespace trit::io {
namespace fs = std::filesystem;

AtomicFolder::AtomicFolder(const fs::path& target) : target_(target) {
  if (!target_.has_filename()) {  // "model/"
    target_ = target_.parent_path();
  }
  if (fs::exists(target_) && !(fs::is_directory(target_) && fs::is_empty(target_))) {
    throw Error(target_.string() + ": already exists, wanted a new or an empty folder");
  }
  temporary_ = target_;
  temporary_ += ".tmp-" + std::to_string(::getpid());
  std::error_code error;
  fs::remove_all(temporary_, error);  // of a process that was killed and had our id
  if (!fs::create_directory(temporary_, error)) {
    const std::string name = temporary_.filename().string();
    temporary_.clear();
    throw Error(target_.string() + ": cannot create the temporary folder \"" + name +
                "\" beside it: " + error.message());
  }
}

AtomicFolder::~AtomicFolder() {
  if (!temporary_.empty()) {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  }
}

void AtomicFolder::commit() {
  // rename(2) replaces an empty folder.
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
    throw Error(target_.string() + ": cannot be created: " + std::generic_category().message(errno));
  }
  temporary_.clear();
  sync_folder_of(target_);
}

}  // namespace trit::io

// SPDX-License-Identifier: MIT
#include "runtime/cuda/library.h"

#include <dlfcn.h>

#include <array>

#include "trit/error.h"

namespace trit::runtime::gpu {

Library::Library(std::span<const char* const> sonames, const std::string& advice) {
  constexpr std::array kFolders = {"", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/"};
  std::string tried;
  for (const char* soname : sonames) {
    for (const char* folder : kFolders) {
      const std::string path = std::string(folder) + soname;
      handle_.reset(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
      if (handle_) {
        soname_ = soname;
        return;
      }
      const char* const reason = dlerror();
      tried += "\n  " + std::string(reason == nullptr ? path : reason);
    }
  }
  throw Error("backend 'cuda': cannot load " + std::string(sonames.front()) +
              ". Tried, with LD_LIBRARY_PATH:" + tried + "\n" + advice);
}

void* Library::symbol(const char* name) const {
  void* const found = dlsym(handle_.get(), name);
  if (found == nullptr) {
    throw Error("backend 'cuda': " + soname_ + " has no function " + name);
  }
  return found;
}

void Library::Close::operator()(void* handle) const { dlclose(handle); }

void check_status(int status, const char* what) {
  if (status != 0) {
    throw Error(std::string("cuda: ") + what + " failed with status " + std::to_string(status));
  }
}

std::string version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace trit::runtime::gpu

// SPDX-License-Identifier: MIT
//
// A shared library that is loaded when it is needed.
#pragma once

#include <memory>
#include <span>
#include <string>

namespace trit::runtime::gpu {

class Library {
 public:
  /// The first of `sonames` that the loader finds (LD_LIBRARY_PATH, its own cache), or that lies where
  /// NVIDIA's installers put it. Throws Error that names what was tried, and `advice`.
  Library(std::span<const char* const> sonames, const std::string& advice);

  /// Throws Error if the library has no such function.
  template <typename Function>
  void load(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;
  struct Close {
    void operator()(void* handle) const;
  };
  std::string soname_;
  std::unique_ptr<void, Close> handle_;
};

/// Throws Error that says what failed, if a function of cuDNN or cuBLAS did not return 0, its success.
void check_status(int status, const char* what);

}  // namespace trit::runtime::gpu

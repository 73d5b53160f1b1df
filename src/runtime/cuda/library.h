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
  /// Loads the first of `sonames` that the loader finds (LD_LIBRARY_PATH, its own cache), or that is where
  /// NVIDIA's installers put it. Throws Error with what was tried, and `advice`.
  Library(std::span<const char* const> sonames, const std::string& advice);

  /// Throws Error if the library has no such function. `Function` is a pointer.
  template <typename Function>
  Function load(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;
  struct Close {
    void operator()(void* handle) const;
  };
  std::string soname_;
  std::unique_ptr<void, Close> handle_;
};

/// A member that points to a function of `library`, of the type that the library's header declares.
// NOLINTBEGIN(bugprone-macro-parentheses): `name` is declared
#define TRIT_LOADED_FUNCTION(name) decltype(&::name) name = library.load<decltype(&::name)>(#name)
// NOLINTEND(bugprone-macro-parentheses)

/// Throws Error that says what failed, if a function of cuDNN or cuBLAS did not return 0, its success.
void check_status(int status, const char* what);

/// 91002 -> "9.10.2", as cuDNN and cuBLAS number their versions.
std::string version_text(int version);

}  // namespace trit::runtime::gpu

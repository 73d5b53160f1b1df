// SPDX-License-Identifier: MIT
//
// The names of Gloo that c10d/ProcessGroupGloo.hpp mentions. LibTorch contains Gloo, and its packages have
// that header, but not Gloo's own. Only pointers to these classes are used; their members are in
// libtorch_cpu. The folder is searched last, so that real headers win.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo

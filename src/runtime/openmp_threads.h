// SPDX-License-Identifier: MIT
//
// What oneDNN takes from OpenMP's settings of the calling thread.
#pragma once

#include <memory>
#include <vector>

#include "trit/parallel.h"

namespace trit::runtime {

/// For one scope: how many threads it uses.
class OpenMpThreads {
 public:
  explicit OpenMpThreads(int threads);
  ~OpenMpThreads();
  OpenMpThreads(const OpenMpThreads&) = delete;
  OpenMpThreads& operator=(const OpenMpThreads&) = delete;

 private:
  int before_;
};

/// For one scope: the default floating-point environment on those threads. oneDNN does not set it, and they
/// have the one of the thread that started them: a caller that flushes denormals passes that on.
class OpenMpFloatingPoint {
 public:
  OpenMpFloatingPoint();
  ~OpenMpFloatingPoint();
  OpenMpFloatingPoint(const OpenMpFloatingPoint&) = delete;
  OpenMpFloatingPoint& operator=(const OpenMpFloatingPoint&) = delete;

 private:
  int threads_;
  std::vector<std::unique_ptr<DefaultFloatingPoint>> environments_;  // each thread's own
};

}  // namespace trit::runtime

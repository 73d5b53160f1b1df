// SPDX-License-Identifier: MIT
//
// How kernels use more than one core. They split their work into tasks and hand them to the owner of the
// threads: this library's OpenMP team, or the host's pool (LibTorch's at::parallel_for). A task owns its
// outputs, so results never depend on the number of threads.
#pragma once

#if !defined(__x86_64__)
#include <cfenv>
#endif
#include <cstdint>
#include <functional>
#include <memory>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Runs tasks on threads. Every task starts with the default floating-point environment
/// (MXCSR 0x1f80: round half to even, denormals kept), whatever the calling thread has
/// set; the caller's environment is unchanged.
class Parallel {
 public:
  virtual ~Parallel() = default;
  /// Threads that run() may use, >= 1.
  virtual int threads() const = 0;
  /// Calls task(i) once for every i in [0, tasks) and returns when all have ended. A task must not throw.
  virtual void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) = 0;
};

/// Sets the calling thread's floating-point environment to the default (MXCSR 0x1f80) for one scope, as the
/// numerics contract requires.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint();
  ~DefaultFloatingPoint();
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
#if defined(__x86_64__)
  unsigned saved_;
#else
  std::fenv_t saved_;
#endif
};

/// An OpenMP team of `threads` (0: as many as this process may use). Several threads may call run() at
/// once. In a child of fork(), a thread that had such a team in the parent runs all tasks itself.
std::unique_ptr<Parallel> make_parallel(int threads = 0);

}  // namespace trit

TRIT_EXPORT_END

// SPDX-License-Identifier: MIT
//
// How kernels use more than one core. They split their work into tasks and hand them to whoever owns the
// threads: this library's OpenMP team, or the host's pool (LibTorch's at::parallel_for). Results never depend
// on the number of threads: a task owns its outputs.
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

/// Runs tasks on threads. Every task starts with the default floating-point environment (MXCSR 0x1f80:
/// round half to even, denormals kept), whatever the calling thread has set, and leaves the caller's as it
/// was.
class Parallel {
 public:
  virtual ~Parallel() = default;
  /// Threads that run() may use, >= 1.
  virtual int threads() const = 0;
  /// Calls task(i) once for every i in [0, tasks) and returns when all have ended. A task must not throw.
  virtual void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) = 0;
};

/// For one scope: the floating-point environment of the numerics contract on the calling thread (MXCSR
/// 0x1f80), and the caller's again on exit.
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

/// An OpenMP team of `threads` (0: as many as this process may use). Many threads may call run() at once. In
/// a child of fork(), a thread that had such a team in the parent runs all tasks itself.
std::unique_ptr<Parallel> make_parallel(int threads = 0);

}  // namespace trit

TRIT_EXPORT_END

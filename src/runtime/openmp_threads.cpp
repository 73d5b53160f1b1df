// SPDX-License-Identifier: MIT
#include "runtime/openmp_threads.h"

#include <omp.h>

#include <atomic>
#include <cstddef>

#include "base/team.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::runtime {
namespace {

bool has_default_floating_point() {
#if defined(__x86_64__)
  constexpr unsigned kFlags = 0x3f;  // that an operation has raised; they control nothing
  return (_mm_getcsr() & ~kFlags) == 0x1f80U;
#else
  return false;  // set it
#endif
}

}  // namespace

OpenMpThreads::OpenMpThreads(int threads) : before_(omp_get_max_threads()) {
  if (threads > 1) {
    use_team();
  }
  if (before_ != threads) {
    omp_set_num_threads(threads);
  }
}

OpenMpThreads::~OpenMpThreads() {
  if (omp_get_max_threads() != before_) {
    omp_set_num_threads(before_);
  }
}

OpenMpFloatingPoint::OpenMpFloatingPoint() : threads_(omp_get_max_threads()) {
  if (threads_ == 1) {
    return;  // the caller's own, which is set
  }
  std::atomic<bool> set = true;
#pragma omp parallel num_threads(threads_)
  if (!has_default_floating_point()) {
    set.store(false, std::memory_order_relaxed);
  }
  if (!set) {
    environments_.resize(static_cast<std::size_t>(threads_));
#pragma omp parallel num_threads(threads_)
    environments_[static_cast<std::size_t>(omp_get_thread_num())] = std::make_unique<DefaultFloatingPoint>();
  }
}

OpenMpFloatingPoint::~OpenMpFloatingPoint() {
  if (!environments_.empty()) {
#pragma omp parallel num_threads(threads_)
    environments_[static_cast<std::size_t>(omp_get_thread_num())].reset();
  }
}

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// What every task needs, whoever owns the threads. Apart from parallel.cpp, so that a library whose host has
// the threads links no OpenMP.
#include "base/tasks.h"

#include "trit/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cfenv>
#endif

namespace trit {

#if defined(__x86_64__)
// Not fesetenv: that also reloads the x87 state, fifty times slower, and nothing here uses x87.
DefaultFloatingPoint::DefaultFloatingPoint() : saved_{_mm_getcsr()} { _mm_setcsr(0x1f80); }
DefaultFloatingPoint::~DefaultFloatingPoint() { _mm_setcsr(saved_); }
#else
DefaultFloatingPoint::DefaultFloatingPoint() {
  std::fegetenv(&saved_);
  std::fesetenv(FE_DFL_ENV);
}
DefaultFloatingPoint::~DefaultFloatingPoint() { std::fesetenv(&saved_); }
#endif

namespace {

class Serial final : public Parallel {
 public:
  int threads() const override { return 1; }
  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override {
    const DefaultFloatingPoint environment;
    for (std::int64_t i = 0; i < tasks; ++i) {
      task(i);
    }
  }
};

}  // namespace

std::unique_ptr<Parallel> make_serial() { return std::make_unique<Serial>(); }

void run_tasks(Parallel& parallel, std::int64_t tasks, const std::function<void(std::int64_t)>& task) {
  const auto guarded = [&task](std::int64_t i) {
    const DefaultFloatingPoint environment;
    task(i);
  };
  if (tasks == 1) {
    guarded(0);
  } else if (tasks > 1) {
    parallel.run(tasks, guarded);
  }
}

}  // namespace trit

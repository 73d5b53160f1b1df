// SPDX-License-Identifier: MIT
//
// Fibers: functions with stacks of their own that hand the processor to each other. On x86-64 a switch is a
// dozen instructions (swapcontext would make a system call each time); elsewhere it is ucontext.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "cuda/emulator/sanitizer.h"

namespace trit::emulator {

/// A place to switch to: a fiber, or the thread that started the fibers.
class Fiber {
 public:
  /// The calling thread itself.
  Fiber();
  /// Runs entry() at the first switch to it. `entry` must not return: its last act is a switch.
  Fiber(std::byte* stack, std::size_t stack_bytes, std::function<void()> entry);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Goes on in `next`; returns when somebody switches back. `last`: this fiber will not run again.
  void switch_to(Fiber& next, bool last = false);

 private:
  struct State;
  std::unique_ptr<State> state_;
  friend void fiber_entry(Fiber* fiber);
};

/// Stack of a fiber: kernels are small, sanitized ones are not.
#if defined(TRIT_EMULATOR_ASAN)
inline constexpr std::size_t kFiberStackBytes = 256 << 10;
#else
inline constexpr std::size_t kFiberStackBytes = 64 << 10;
#endif

}  // namespace trit::emulator

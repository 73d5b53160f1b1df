// SPDX-License-Identifier: MIT
#include "cuda/emulator/fiber.h"

#include <cstdint>
#include <cstdlib>
#include <utility>

#include "cuda/emulator/sanitizer.h"

#if defined(TRIT_EMULATOR_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__x86_64__)
// Saves the registers that a function must preserve on the stack, keeps the stack pointer in *from, takes the
// other one.
extern "C" void trit_switch_stack(void** from, void* to);
asm(R"(
.text
.globl trit_switch_stack
.hidden trit_switch_stack
.type trit_switch_stack, @function
trit_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size trit_switch_stack, .-trit_switch_stack
)");
#endif

namespace trit::emulator {

struct Fiber::State {
  std::function<void()> entry;
  const void* stack_bottom =
      nullptr;  // the lowest address; learned at the first switch for the thread's own stack
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of AddressSanitizer
  Fiber* came_from = nullptr;  // who switched here last
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context{};
#endif

  // After a switch: tells AddressSanitizer whose stack this is, and learns where the other's was.
  void arrived([[maybe_unused]] bool first) {
#if defined(TRIT_EMULATOR_ASAN)
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(first ? nullptr : fake_stack, &bottom, &bytes);
    came_from->state_->stack_bottom = bottom;
    came_from->state_->stack_bytes = bytes;
#endif
  }
};

namespace {
Fiber* starting = nullptr;  // the fiber whose entry is about to run
}

void fiber_entry(Fiber* fiber) {
  fiber->state_->arrived(true);
  fiber->state_->entry();
  std::abort();
}

namespace {
extern "C" void trit_fiber_start() { fiber_entry(starting); }
}  // namespace

Fiber::Fiber() : state_(std::make_unique<State>()) {}

Fiber::Fiber(std::byte* stack, std::size_t stack_bytes, std::function<void()> entry)
    : state_(std::make_unique<State>()) {
  state_->entry = std::move(entry);
  state_->stack_bottom = stack;
  state_->stack_bytes = stack_bytes;
#if defined(TRIT_EMULATOR_ASAN)
  __asan_unpoison_memory_region(stack,
                                stack_bytes);  // what frames of the stack's last fiber have left behind
#endif
#if defined(__x86_64__)
  // As if trit_switch_stack had been called by the function at the top: six registers, then the address to
  // return to. At a function's first instruction the stack pointer is 8 below a multiple of 16.
  auto* top = reinterpret_cast<void**>(stack + stack_bytes);
  top[-2] = reinterpret_cast<void*>(&trit_fiber_start);
  for (int i = 3; i <= 8; ++i) {
    top[-i] = nullptr;
  }
  state_->stack_pointer = static_cast<void*>(&top[-8]);
#else
  getcontext(&state_->context);
  state_->context.uc_stack.ss_sp = stack;
  state_->context.uc_stack.ss_size = stack_bytes;
  state_->context.uc_link = nullptr;
  makecontext(&state_->context, trit_fiber_start, 0);
#endif
}

Fiber::~Fiber() = default;

void Fiber::switch_to(Fiber& next, [[maybe_unused]] bool last) {
  State& from = *state_;
  State& to = *next.state_;
  to.came_from = this;
  starting = &next;
#if defined(TRIT_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#if defined(__x86_64__)
  trit_switch_stack(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
  from.arrived(false);
}

}  // namespace trit::emulator

// SPDX-License-Identifier: MIT
//
// What a program of either machine is: functions that run one after the other, and the buffers that they read
// and write, at places that are planned when all steps are known.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "runtime/memory_plan.h"

namespace trit::runtime {

/// Where the buffers of one run lie.
class Addresses {
 public:
  explicit Addresses(std::span<std::byte* const> buffers) : buffers_(buffers) {}
  template <typename T>
  T* at(std::size_t buffer) const {
    return reinterpret_cast<T*>(buffers_[buffer]);
  }

 private:
  std::span<std::byte* const> buffers_;
};

class PlannedSteps {
 public:
  using Function = std::function<void(const Addresses& memory)>;

  /// A buffer for the next step and those up to the last that uses it.
  std::size_t add_buffer(std::size_t bytes);
  /// The next step, which uses these buffers.
  void add(std::span<const std::size_t> buffers, Function step);
  /// The buffer is still needed when all steps have run.
  void keep(std::size_t buffer);
  /// The buffer lies in the caller's memory, and takes none of the arena.
  void place_outside(std::size_t buffer);
  std::size_t buffers() const { return lifetimes_.size(); }

  /// Gives each buffer its place; nothing may be added after it.
  void plan();

  std::size_t arena_bytes() const { return plan_.bytes; }
  std::size_t offset(std::size_t buffer) const { return plan_.offsets[buffer]; }
  /// `outside`: buffers in the caller's memory.
  void run(std::byte* arena, std::initializer_list<std::pair<std::size_t, std::byte*>> outside = {}) const;

 private:
  std::vector<Lifetime> lifetimes_;
  std::vector<Function> steps_;
  MemoryPlan plan_;
};

}  // namespace trit::runtime

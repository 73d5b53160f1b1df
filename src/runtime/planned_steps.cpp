// SPDX-License-Identifier: MIT
#include "runtime/planned_steps.h"

namespace trit::runtime {

std::size_t PlannedSteps::add_buffer(std::size_t bytes) {
  lifetimes_.push_back({bytes, steps_.size(), steps_.size()});
  return lifetimes_.size() - 1;
}

void PlannedSteps::add(std::span<const std::size_t> buffers, Function step) {
  for (const std::size_t buffer : buffers) {
    lifetimes_[buffer].last = steps_.size();
  }
  steps_.push_back(std::move(step));
}

void PlannedSteps::keep(std::size_t buffer) { lifetimes_[buffer].last = steps_.size(); }

void PlannedSteps::place_outside(std::size_t buffer) { lifetimes_[buffer].bytes = 0; }

void PlannedSteps::plan() { plan_ = plan_memory(lifetimes_); }

void PlannedSteps::run(std::byte* arena,
                       std::initializer_list<std::pair<std::size_t, std::byte*>> outside) const {
  std::vector<std::byte*> buffers(plan_.offsets.size());
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    buffers[i] = arena + plan_.offsets[i];
  }
  for (const auto& [buffer, place] : outside) {
    buffers[buffer] = place;
  }
  for (const Function& step : steps_) {
    step(Addresses(buffers));
  }
}

}  // namespace trit::runtime

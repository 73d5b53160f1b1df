// SPDX-License-Identifier: MIT
//
// The steps of a segment as a CPU library runs them: a convolution, the ReLU and the pool behind it are one
// group, so that the ReLU costs no pass of its own.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "runtime/schedule.h"

namespace trit::runtime {

/// One float operation, the ReLU behind it, and the pool behind that.
struct DenseGroup {
  DenseStep step;                   // step.output: the value before the pool
  std::optional<std::size_t> pool;  // the pool's node

  std::size_t output() const { return pool.value_or(step.output); }
};

/// A pool joins a convolution or a ReLU whose result nothing else reads.
std::vector<DenseGroup> group_steps(const Network& network, const DenseSegment& segment);

}  // namespace trit::runtime

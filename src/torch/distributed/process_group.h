// SPDX-License-Identifier: MIT
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "trit/distributed.h"

namespace trit::distributed {

struct ProcessGroup::Impl {
  ~Impl();

  c10::intrusive_ptr<c10d::ProcessGroup> group;
  torch::Device device;
  std::chrono::milliseconds timeout;
};

/// Throws c10::Error for a type that gradients cannot be summed in.
void check_gradient_type(const char* who, torch::ScalarType type);

/// The number of processes [1], by which sums are divided. A tensor of float32, not a number: with it sums of
/// bfloat16 become float32 before they are divided, in one pass.
torch::Tensor float_divisor(int processes, torch::Device device);

}  // namespace trit::distributed

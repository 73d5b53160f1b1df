// SPDX-License-Identifier: MIT
//
// The state that one of LibTorch's optimizers keeps for a parameter, by name.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

namespace trit::distributed {

/// Tensors of the parameter's shape ("exp_avg") by reference or as copies, numbers ("step") as tensors [].
/// Empty if the optimizer has no state for it, or none yet.
std::map<std::string, torch::Tensor> state_of(torch::optim::Optimizer& optimizer,
                                              const torch::Tensor& parameter);

/// The opposite. The optimizer must have a state of the right class for the parameter, as it has after a
/// step.
void set_state(torch::optim::Optimizer& optimizer, const torch::Tensor& parameter,
               const std::map<std::string, torch::Tensor>& state);

}  // namespace trit::distributed

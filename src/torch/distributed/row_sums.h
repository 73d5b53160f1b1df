// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

namespace trit::torch_layer {

/// lane_sum of |w| of each row of a float32 weight [N, K], on the CPU or a GPU: float32 [N], the first step
/// of ops::absmean and to its bits.
torch::Tensor abs_row_sums(const torch::Tensor& weight);

}  // namespace trit::torch_layer

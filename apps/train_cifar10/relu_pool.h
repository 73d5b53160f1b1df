// SPDX-License-Identifier: MIT
//
// ReLU and 2x2 max-pooling in one pass over a channels-last image, forward and backward.
//
//   y[n, c, i, j] = max(0, max of x[n, c, 2i..2i+1, 2j..2j+1])
//
// Values and gradients are those of at::max_pool2d(at::relu(x), 2): the gradient goes to the first maximum of a
// window, and nowhere if that is not positive. NaN passes through, and so does -0.0 on a CPU. Backward needs
// one byte per output instead of an int64 index and the two activations.
#pragma once

#include <torch/torch.h>

namespace trit::train {

/// x [N, C, H, W] of float32, bfloat16 or float16; H and W even -> [N, C, H/2, W/2], channels last.
torch::Tensor relu_max_pool(const torch::Tensor& x);

}  // namespace trit::train

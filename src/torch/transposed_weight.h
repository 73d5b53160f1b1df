// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

#include "trit/linear.h"

namespace trit::torch_layer {

/// codes [N, ceil(K / 4)] as a prepared weight of K outputs and N inputs; scale [1], or [N], which belongs to
/// the activations then: the weight's own scale is 1. Both tensors are contiguous.
PackedLinear transposed_weight(const CpuKernels& kernels, Parallel& parallel, const torch::Tensor& codes,
                               const torch::Tensor& scale, std::int64_t in_features);

}  // namespace trit::torch_layer

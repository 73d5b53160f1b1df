// SPDX-License-Identifier: MIT
//
// What the device-independent part of the LibTorch half asks of the CUDA one. Free of CUDA's headers; a build
// without TRIT_CUDA has the same functions (packed_weight.cpp).
#pragma once

#include "torch/packed_weight.h"

namespace trit::torch_layer::cuda {

/// Whether the current stream is being captured into a CUDA graph.
bool is_capturing();

/// PackedWeight::from_float of a weight on a GPU, with the layout of the GPU's kernels, in one launch. It may
/// be used on other streams than the current one if it is to be `kept`.
c10::intrusive_ptr<PackedWeight> pack(const torch::Tensor& weight, bool per_row, std::int64_t group,
                                      bool kept);

}  // namespace trit::torch_layer::cuda

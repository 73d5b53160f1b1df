// SPDX-License-Identifier: MIT
//
// Free of torch: src/torch and src/torch_stable share it.
#pragma once

#include "trit/linear.h"

namespace trit::torch_layer {

/// A stored weight [N, K] as a prepared weight of K outputs and N inputs. Scales per row belong to the activations
/// then: the weight's own scale is 1. No group scales.
PackedLinear transposed_weight(const CpuKernels& kernels, Parallel& parallel, const TernaryView& stored);

}  // namespace trit::torch_layer

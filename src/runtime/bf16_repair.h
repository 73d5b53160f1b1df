// SPDX-License-Identifier: MIT
//
// The values that bf16 pairs cannot carry (bf16_pairs.h): NaN, infinities and what rounds to one.
#pragma once

#include <span>

#include "runtime/builtin_kernels.h"
#include "trit/parallel.h"

namespace trit::runtime {

/// Whether every value is finite and rounds to a finite bf16 number.
bool fits_bf16(std::span<const float> values);

/// Computes a convolution's outputs y whose window holds a value of x that does not fit again in fp32:
/// bias[out] (may be null) + weight[out, channels, kernel_height, kernel_width] * x. x and y are
/// channels-last.
void repair_outputs(Parallel& parallel, const builtin::Image& size, const float* x, const float* weight,
                    const float* bias, float* y);

}  // namespace trit::runtime

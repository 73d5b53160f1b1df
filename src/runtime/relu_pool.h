// SPDX-License-Identifier: MIT
//
// ReLU, sums and pooling of floats in any of the layouts that convolutions use. Values are LibTorch's, bit
// for bit: a NaN stays a NaN, -0.0 and denormals are kept, the first of equal values wins (of +0.0 and -0.0),
// and a mean is summed row by row from +0.0 and then divided.
//
// oneDNN's own ReLU and max-pooling are not used: on every instruction set they turn a NaN into 0 or
// -3.4e38, and a window of -infinity into -3.4e38 (oneDNN 3.2).
#pragma once

#include <cstdint>

#include "trit/parallel.h"

namespace trit::runtime {

/// x [outer, height, width, inner] -> y [outer, out_height, out_width, inner], no padding. Row-major images
/// have inner = 1 and outer = batch * channels, channels-last ones inner = channels, and blocked ones
/// (oneDNN's nChw16c) inner = 16.
struct Pooling {
  std::int64_t outer, height, width, inner;
  std::int64_t out_height, out_width;
  std::int64_t kernel, stride;
  bool relu = false;  // max(x, 0) of every input first
};

/// y = max(x, 0); `y` may be `x`.
void relu(Parallel& parallel, std::int64_t count, const float* x, float* y);
/// y = a + b.
void add(Parallel& parallel, std::int64_t count, const float* a, const float* b, float* y);
/// Largest of each window; NaN if the window holds one.
void max_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y);
/// Mean of each window.
void avg_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y);

}  // namespace trit::runtime

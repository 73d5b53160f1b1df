// SPDX-License-Identifier: MIT
//
// Plain loops for float layers, row-major, on any machine. Each splits its work over `parallel`. relu_pool.h
// has the others.
#pragma once

#include <cstdint>

#include "trit/parallel.h"

namespace trit::runtime::builtin {

/// Sizes of an image operation: x [batch, channels, height, width] -> y [batch, out_channels, out_height,
/// out_width].
struct Image {
  std::int64_t batch, channels, height, width;
  std::int64_t out_channels, out_height, out_width;
  std::int64_t kernel_height, kernel_width, stride, padding;
};

/// y = bias + sum over c, i, j of w[out_channels, channels, i, j] * x at (stride * row + i - padding, ...).
void conv2d(Parallel& parallel, const Image& size, const float* x, const float* weight, const float* bias,
            bool relu, float* y);

/// y [rows, out] = x [rows, in] · wᵀ [out, in] + bias.
void linear(Parallel& parallel, std::int64_t rows, std::int64_t in, std::int64_t out, const float* x,
            const float* weight, const float* bias, bool with_relu, float* y);

}  // namespace trit::runtime::builtin

// SPDX-License-Identifier: MIT
//
// What the 8-bit backward (trit/gradient.h) on a CPU does around the products: src/torch and src/torch_stable share
// it. Free of torch.
#pragma once

#include <cstdint>

#include "trit/gradient.h"
#include "trit/linear.h"
#include "trit/parallel.h"

namespace trit::torch_layer {

/// A layer's gradient dY [M, N], contiguous.
struct GradientView {
  const float* grad;
  std::int64_t tokens;
  std::int64_t out_features;
};

/// Where dY in int8 per token goes: the activations of the product dX = dY · (beta t).
struct GradientRowCodes {
  std::int8_t* q;       // [M, padded_in_features(N)]
  float* scale;         // [M]
  std::int32_t* q_sum;  // [M]
};
/// `beta` [N] where each output row has a scale of its own, else null.
void quantize_gradient_rows(Parallel&& parallel, const GradientView& view, const float* beta,
                            const GradientRounding& rounding, const GradientRowCodes& to);

/// s dY in int8 per output: codes q [M, N] and scales [N]. `first` is the token that row 0 is for the random numbers.
void quantize_gradient_outputs(Parallel&& parallel, const GradientView& view, const float* token_scale,
                               std::int64_t first, const GradientRounding& rounding, std::int8_t* q,
                               float* scale);

/// Whether LibTorch's int8 product of gᵀ · q is exact. oneDNN adds pairs of products in 16 bits, which saturate,
/// where the CPU has no int8 dot products (VNNI).
bool has_exact_int8_product(const CpuKernels& kernels);
/// Tokens of a product in floats that is exact: 127 * 128 * 1,024 < 2^24.
inline constexpr std::int64_t kExactTokens = 1024;

/// to [rows, columns] = (float)sums * scale, a scale per row.
void scale_rows(Parallel&& parallel, const std::int32_t* sums, const float* scale, std::int64_t rows,
                std::int64_t columns, float* to);

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
//
// The GPU kernels that the LibTorch half needs beside those of trit/cuda.h: raw pointers and a stream, free
// of torch, no allocation and no synchronisation. With r = 1 / sqrt(mean(x^2) + eps) and u = dL/dy, the
// RMSNorm's formulas are those of torch/row_kernels.h, each operation rounded by itself and in the same
// order, so that y, r and dL/dx have the CPU's bits.
#pragma once

#include <cstdint>

#include "trit/cuda.h"

namespace trit::torch_layer::cuda {

using trit::cuda::Stream;

/// Columns [first_column, first_column + columns) of t * scale, from codes [N, packed_row_bytes(K)], to
/// w [N, columns] of w_type; first_column is a multiple of 4. `scale` [1], [N] with `per_row`,
/// [N, groups_of(K, group)] with a `group`, or null for ones: -1, 0, +1 are exact in every type.
struct Dequantize {
  const std::uint8_t* codes;
  std::int64_t out_features;
  std::int64_t in_features;
  const float* scale;
  bool per_row;
  std::int64_t first_column;
  std::int64_t columns;
  DataType w_type;
  void* w;
  std::int64_t group = 0;
};
void dequantize(const Dequantize& args, Stream stream);

/// y [rows, features] = x * r * weight and r [rows]. `weight` may be null.
struct RmsNorm {
  const void* x;  // of type
  DataType type;
  std::int64_t rows;
  std::int64_t features;
  const float* weight;
  float eps;
  void* y;  // of type
  float* rstd;
};
void rms_norm(const RmsNorm& args, Stream stream);

/// The backward of a norm with fewer parts than rows sums the weight's gradient per part, part p being rows
/// p * rows / parts and on; the caller adds the parts.
struct RmsNormBackward {
  const void* grad;  // [rows, features] of type
  const void* x;     // likewise
  DataType type;
  std::int64_t rows;
  std::int64_t features;
  const float* weight;  // [features] or null
  const float* rstd;    // [rows]
  void* grad_x;         // [rows, features] of type, or null
  float* grad_weight;   // [parts, features], or null
  std::int64_t parts;   // 1 .. 65535
};
void rms_norm_backward(const RmsNormBackward& args, Stream stream);

}  // namespace trit::torch_layer::cuda

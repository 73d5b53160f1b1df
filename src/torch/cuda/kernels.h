// SPDX-License-Identifier: MIT
//
// The GPU kernels that the LibTorch half needs beside those of trit/cuda.h: raw pointers and a stream, free
// of torch, no allocation and no synchronisation. With r = 1 / sqrt(mean(x^2) + eps) and u = dL/dy, the
// RMSNorm's formulas are those of torch/row_kernels.h, each operation rounded by itself and in the same
// order, so that y, r and dL/dx have the CPU's bits.
#pragma once

#include <cstdint>

#include "trit/cuda.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer::cuda {

using trit::cuda::Stream;

/// Columns [first_column, first_column + columns) of t * scale, from a stored weight in the GPU's memory, to
/// w [N, columns] of w_type; first_column is a multiple of 4. Without scales -1, 0, +1, exact in every type.
void dequantize(const TernaryView& weight, std::int64_t first_column, std::int64_t columns, DataType w_type,
                void* w, Stream stream);

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

/// norm_backward of trit/cuda_backward.h for any type, number of inputs and alignment, with 1 .. 65535 parts.
void rms_norm_backward(const trit::cuda::NormBackward& args, Stream stream);

}  // namespace trit::torch_layer::cuda

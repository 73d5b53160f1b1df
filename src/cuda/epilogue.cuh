// SPDX-License-Identifier: MIT
//
// The end of a product: y = ((float)acc * s) * beta, then + bias, each step rounded, to float32, bfloat16 or
// float16.
#pragma once

#include "cuda/ptx.cuh"
#include "trit/format.h"

namespace trit::cuda {

struct Output {
  const float* row_scale;  // s [tokens]
  const float* scale;      // beta [1] or [out_features]
  const float* bias;       // [out_features] or null
  void* y;                 // [tokens, out_features]
  int tokens;
  int out_features;
  DataType type;
  bool scale_per_row;
};

/// Without a bias it is -0: x + -0 is x, bit for bit, for every x.
__device__ __forceinline__ float output_value(std::int32_t acc, float token_scale, float beta, float bias) {
  return __fadd_rn(__fmul_rn(__fmul_rn(__int2float_rn(acc), token_scale), beta), bias);
}

__device__ __forceinline__ float output_value(const Output& out, std::int32_t acc, float row_scale, int row) {
  const float y =
      __fmul_rn(__fmul_rn(__int2float_rn(acc), row_scale), out.scale[out.scale_per_row ? row : 0]);
  return out.bias == nullptr ? y : __fadd_rn(y, out.bias[row]);
}

__device__ __forceinline__ void store_output(const Output& out, DataType type, int token, int row,
                                             float value) {
  const std::int64_t i = std::int64_t{token} * out.out_features + row;
  if (type == DataType::float32) {
    static_cast<float*>(out.y)[i] = value;
  } else {
    static_cast<std::uint16_t*>(out.y)[i] =
        type == DataType::bfloat16 ? ptx::to_bfloat16(value) : ptx::to_float16(value);
  }
}

/// The outputs of a tile, from sums in shared memory: sums[token * stride + row]. A warp takes 32
/// neighbouring rows of one token at a time, so that it stores 32 neighbours; `rows` is a multiple of 32. The
/// loop is not unrolled: cold straight-line code is bound by fetching it.
__device__ __forceinline__ void store_tile(const Output& out, const std::int32_t* sums, int stride,
                                           int first_token, int tokens, int first_row, int rows) {
  const int segments = rows / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) / 32; i < tokens * segments; i += warps) {
    const int t = i / segments;
    const int r = (i - t * segments) * 32 + static_cast<int>(threadIdx.x) % 32;
    if (first_row + r < out.out_features) {
      const int token = first_token + t;
      const float value = output_value(out, sums[t * stride + r], out.row_scale[token], first_row + r);
      store_output(out, out.type, token, first_row + r, value);
    }
  }
}

}  // namespace trit::cuda

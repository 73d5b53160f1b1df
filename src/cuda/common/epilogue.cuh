// SPDX-License-Identifier: MIT
//
// The end of a product: y = ((float)acc * s) * beta, then + bias, each step rounded, to float32, bfloat16 or
// float16.
#pragma once

#include "cuda/common/ptx.cuh"
#include "trit/format.h"

namespace trit::cuda {

struct Output {
  const float* token_scale;   // s [tokens]
  const float* weight_scale;  // beta [1] or [out_features]
  const float* bias;          // [out_features] or null
  void* y;                    // [tokens, out_features]
  int tokens;
  int out_features;
  DataType type;
  bool scale_per_row;
};

/// Without a bias it is -0: x + -0 is x, bit for bit, for every x.
__device__ __forceinline__ float output_value(std::int32_t acc, float token_scale, float beta, float bias) {
  return __fadd_rn(__fmul_rn(__fmul_rn(__int2float_rn(acc), token_scale), beta), bias);
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

/// Eight neighbouring rows of a token, those of them that exist. `vector`: 16 bytes at a time; out_features
/// is then a multiple of 8, and y and row are multiples of 16 bytes and 8 rows.
__device__ __forceinline__ void store_outputs(const Output& out, int token, int row, const float (&value)[8],
                                              bool vector) {
  // The same in every turn of a loop: without this the compiler makes a copy of the loop for each type.
  int type = static_cast<int>(out.type);
  ptx::opaque(type);
  if (!vector) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (row + i < out.out_features) {
        store_output(out, static_cast<DataType>(type), token, row + i, value[i]);
      }
    }
    return;
  }
  const std::int64_t at = std::int64_t{token} * out.out_features + row;
  if (static_cast<DataType>(type) == DataType::float32) {
    auto* to = reinterpret_cast<float4*>(static_cast<float*>(out.y) + at);
    to[0] = make_float4(value[0], value[1], value[2], value[3]);
    to[1] = make_float4(value[4], value[5], value[6], value[7]);
    return;
  }
  std::uint32_t pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool bfloat16 = static_cast<DataType>(type) == DataType::bfloat16;
    const std::uint32_t low = bfloat16 ? ptx::to_bfloat16(value[2 * i]) : ptx::to_float16(value[2 * i]);
    const std::uint32_t high =
        bfloat16 ? ptx::to_bfloat16(value[2 * i + 1]) : ptx::to_float16(value[2 * i + 1]);
    pair[i] = low | high << 16;
  }
  *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(out.y) + at) =
      make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

}  // namespace trit::cuda

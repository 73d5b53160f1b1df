// SPDX-License-Identifier: MIT
//
// What the three kernels of norm_quant share: their arguments, loads, and how a row's scale follows from its
// sum of squares and its maximum.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "cuda/common/ptx.cuh"
#include "trit/format.h"

namespace trit::cuda {

struct NormQuantArguments {
  const void* x;  // [tokens, x_stride]
  std::int64_t x_stride;
  int tokens;
  int in_features;
  int row_bytes;  // of q
  bool cached;    // x g fits in shared memory
  const float* norm_weight;
  float eps;
  std::int8_t* q;
  float* scale;
  float* rstd;
};

/// Copies a row to shared memory (16-byte aligned) and waits for this thread's part of it: 16 bytes at a time
/// where the row starts on 16.
template <typename Input>
__device__ __forceinline__ void stage_row(Input* cache, const Input* x, int count, int thread, int threads) {
  constexpr int kPerVector = 16 / sizeof(Input);
  const int vectors = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 ? count / kPerVector : 0;
#pragma unroll 4
  for (int i = thread; i < vectors; i += threads) {
    ptx::cp_async_16(cache + i * kPerVector, x + i * kPerVector);
  }
  ptx::cp_async_commit();
#pragma unroll 4
  for (int i = vectors * kPerVector + thread; i < count; i += threads) {
    cache[i] = x[i];
  }
  ptx::cp_async_wait<0>();
}

__device__ __forceinline__ bool is_finite(float v) {
  return (__float_as_uint(v) & 0x7fffffffU) < 0x7f800000U;
}

/// rint(v) of |v| < 2^22 in the low bits: 1.5 * 2^23 has a unit of 1, so the addition rounds half to even
/// where rint does.
__device__ __forceinline__ std::uint32_t rounded_byte(float v) {
  return __float_as_uint(__fadd_rn(v, 12582912.0F)) & 0xffU;
}

/// The codes of two such v in the low bytes, and of four.
__device__ __forceinline__ std::uint32_t rounded_word(float a, float b) {
  return __byte_perm(__float_as_uint(__fadd_rn(a, 12582912.0F)), __float_as_uint(__fadd_rn(b, 12582912.0F)),
                     0x0040);
}
__device__ __forceinline__ std::uint32_t rounded_word(float a, float b, float c, float d) {
  return __byte_perm(rounded_word(a, b), rounded_word(c, d), 0x5410);
}

/// v / 127 of finite |v| >= 1e-5, as the division rounds it: a quotient within a unit, and its exact remainder times
/// the rounded reciprocal (Markstein). The division's own code is three times as long.
__device__ __forceinline__ float divide_by_127(float v) {
  constexpr float kReciprocal = 1.0F / 127.0F;
  const float quotient = __fmul_rn(v, kReciprocal);
  return __fmaf_rn(__fmaf_rn(-127.0F, quotient, v), kReciprocal, quotient);
}

struct TokenScale {
  float scale;   // s
  float rstd;    // r
  float factor;  // q = rint(x g factor)
  bool good;     // false: q is 0 and s NaN
};

/// What a row's mean square gives.
struct RowNorm {
  float mean_square, rstd;
};
/// `squares`: lane_sum of x^2.
template <bool kNorm>
__device__ __forceinline__ RowNorm row_norm(const NormQuantArguments& a, float squares) {
  if constexpr (!kNorm) {
    return {0.0F, 1.0F};
  }
  const float mean_square = __fdiv_rn(squares, static_cast<float>(a.in_features));
  return {mean_square, __fdiv_rn(1.0F, __fsqrt_rn(__fadd_rn(mean_square, a.eps)))};
}

/// `magnitude`: the maximum of |x g| of a row or a group.
template <bool kNorm>
__device__ __forceinline__ TokenScale token_scale(const RowNorm& norm, float magnitude) {
  TokenScale row;
  row.rstd = norm.rstd;
  const float product = kNorm ? __fmul_rn(row.rstd, magnitude) : magnitude;
  row.good = is_finite(norm.mean_square) && is_finite(magnitude) && is_finite(product);
  const float absmax = product > 1e-5F ? product : 1e-5F;
  const float inverse = __fdiv_rn(127.0F, absmax);
  row.factor = kNorm ? __fmul_rn(row.rstd, inverse) : inverse;
  row.scale = row.good ? divide_by_127(absmax) : __uint_as_float(0x7fc00000U);
  return row;
}
template <bool kNorm>
__device__ __forceinline__ TokenScale token_scale(const NormQuantArguments& a, float squares,
                                                  float magnitude) {
  return token_scale<kNorm>(row_norm<kNorm>(a, squares), magnitude);
}

__device__ __forceinline__ void store_token_scale(const NormQuantArguments& a, std::int64_t row,
                                                  const TokenScale& scale) {
  a.scale[row] = scale.scale;
  if (a.rstd != nullptr) {
    a.rstd[row] = scale.rstd;
  }
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// What the kernels of norm_quant share that hold rows with group scales or a rotation in registers.
#pragma once

#include "cuda/rows/norm_quant_groups.h"
#include "cuda/rows/rotation.cuh"

namespace trit::cuda {

/// x, negated where the byte of sign `i` of four is negative.
__device__ __forceinline__ float with_sign(float x, std::uint32_t signs, int i) {
  return __uint_as_float(__float_as_uint(x) ^ (signs << (24 - 8 * i) & 0x80000000U));
}

/// The weights of a thread's neighbouring inputs, negative where the sign is. All loads are under way at once.
/// kWhole: all of the inputs are of the row of `count`.
template <bool kWhole, int kSize>
__device__ __forceinline__ void load_weights(float (&weight)[kSize], const float* g, const std::int8_t* signs,
                                             int first, int count) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    weight[i] = 1.0F;
  }
  if (g != nullptr) {
#pragma unroll
    for (int i = 0; i < kSize; i += 4) {
      if (kWhole || first + i < count) {
        const float4 four = *reinterpret_cast<const float4*>(g + first + i);
        weight[i] = four.x;
        weight[i + 1] = four.y;
        weight[i + 2] = four.z;
        weight[i + 3] = four.w;
      }
    }
  }
  if (signs != nullptr) {
    uint2 negative[kSize / 8] = {};
#pragma unroll
    for (int i = 0; i < kSize; i += 8) {
      if (kWhole || first + i < count) {
        negative[i / 8] = *reinterpret_cast<const uint2*>(signs + first + i);
      }
    }
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const std::uint32_t word = i % 8 < 4 ? negative[i / 8].x : negative[i / 8].y;
      weight[i] = with_sign(weight[i], word, i % 4);
    }
  }
}

__device__ __forceinline__ float largest_of_four(const float* v) {
  return ptx::max_magnitude(ptx::max_magnitude(v[0], v[1]), ptx::max_magnitude(v[2], v[3]));
}

/// The bits of the largest of rotated values times the block's scale, of those of the largest before it. Rounding is
/// monotone: the maximum of the products is the product of the maximum.
__device__ __forceinline__ unsigned scaled_largest(unsigned largest, float block_scale) {
  return __float_as_uint(__fmul_rn(__uint_as_float(largest), block_scale)) & 0x7fffffffU;
}

/// Whether the block's scale may be part of the factor of good scales: a power of two may, since no product of the two is
/// smaller than 127 / FLT_MAX: the factor is 127 over the largest product.
__device__ __forceinline__ bool is_part_of_factor(float block_scale) {
  return (__float_as_uint(block_scale) & 0x007fffffU) == 0;
}

/// The largest magnitude's bits of a scale's inputs; `maxima` has those of `of_group` pieces a group, `pieces` in
/// all. of_group 0: one scale of the row.
__device__ __forceinline__ unsigned largest_of(const unsigned* maxima, int group, int of_group, int pieces,
                                               int lane) {
  unsigned largest = 0;
  if (of_group == 0) {
#pragma unroll 1
    for (int i = lane; i < pieces; i += 32) {
      largest = max(largest, maxima[i]);
    }
    return __reduce_max_sync(0xffffffffU, largest);
  }
#pragma unroll 1
  for (int i = group * of_group; i < min((group + 1) * of_group, pieces); ++i) {
    largest = max(largest, maxima[i]);
  }
  return largest;
}

}  // namespace trit::cuda

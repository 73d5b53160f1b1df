// SPDX-License-Identifier: MIT
//
// The end of decode_one with group scales: a lane adds up a row, over all of its groups.
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/decode_one/decode_one.h"

namespace trit::cuda::one {

/// A group's sum as it is handed over: a float already.
__device__ __forceinline__ std::int32_t float_bits(std::int32_t sum) {
  return static_cast<std::int32_t>(__float_as_uint(__int2float_rn(sum)));
}

/// acc = fma((float)isum, w, acc) over all segments. sums[32 i] is segment i's, as a float where it is a group's,
/// scales[32 g] the weight scale of group g, both in shared memory; beyond the row kGroupOverread of each may be read.
///
/// The sum is a chain of fma, 4 clocks each, and everything else hides behind it: where a segment is a group, one
/// batch is loaded while another one is added up.
template <int kBatch, bool kHalf, bool kTokenGroups>
__device__ __forceinline__ float sum_of_groups(const Groups& groups, const std::int32_t* sums,
                                               const void* scales, const float* token_scales) {
  const auto segments = static_cast<unsigned>(groups.segments);
  const auto weight = [&](unsigned g) {
    const float beta = scale_at<kHalf>(scales, g * 32);
    return kTokenGroups ? __fmul_rn(beta, token_scales[min(g, static_cast<unsigned>(groups.count) - 1)])
                        : beta;
  };
  float acc = 0.0F;
  if (groups.per_group > 1) {
    const auto per_group = static_cast<unsigned>(groups.per_group);
    std::int32_t isum = 0;
    unsigned place = 0;
    unsigned g = 0;
#pragma unroll 1
    for (unsigned i = 0; i < segments; ++i) {
      isum += sums[i * 32];
      if (++place == per_group || i + 1 == segments) {
        acc = __fmaf_rn(__int2float_rn(isum), weight(g), acc);
        isum = 0;
        place = 0;
        ++g;
      }
    }
    return acc;
  }
  static_assert(2 * kBatch <= kGroupOverread);
  struct Batch {
    float isum[kBatch], w[kBatch];
  };
  const auto load = [&](Batch& batch, unsigned first) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      batch.isum[i] = __int_as_float(sums[(first + i) * 32]);
      batch.w[i] = weight(first + i);
    }
  };
  Batch even;
  Batch odd;
  load(even, 0);
  unsigned first = 0;
#pragma unroll 1
  for (; first + 2 * kBatch <= segments; first += 2 * kBatch) {
    load(odd, first + kBatch);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      acc = __fmaf_rn(even.isum[i], even.w[i], acc);
    }
    load(even, first + 2 * kBatch);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      acc = __fmaf_rn(odd.isum[i], odd.w[i], acc);
    }
  }
  load(odd, first + kBatch);
#pragma unroll
  for (int i = 0; i < 2 * kBatch; ++i) {
    const Batch& batch = i < kBatch ? even : odd;
    const float next = __fmaf_rn(batch.isum[i % kBatch], batch.w[i % kBatch], acc);
    acc = first + i < segments ? next : acc;
  }
  return acc;
}

/// The same, with scales of tokens where they have any.
template <int kBatch, bool kHalf>
__device__ __forceinline__ float sum_of_groups(const Groups& groups, const std::int32_t* sums,
                                               const void* scales, const float* token_scales) {
  return groups.token_groups ? sum_of_groups<kBatch, kHalf, true>(groups, sums, scales, token_scales)
                             : sum_of_groups<kBatch, kHalf, false>(groups, sums, scales, token_scales);
}

}  // namespace trit::cuda::one

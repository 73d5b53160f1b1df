// SPDX-License-Identifier: MIT
//
// The main loops of the persistent Hopper GEMM with group scales: the int32 sums of a group become
// acc = fma((float)isum, w, acc) in fp32 registers, group after group. A warpgroup has one row block,
// since int32 sums lie beside acc; wide tiles hold int32 sums of two pieces of the tokens only.
//
// Adding up takes half as many instructions as wgmma takes clocks, and wgmma, whose accumulators are in registers, takes
// half of the issue slots. So the wgmma of the next group, or of the next piece of the tokens, are under way while a
// warpgroup adds one up:
//
//   128 rows   two warpgroups, each with two sets of sums (groups_ahead.cuh)
//    64 rows   two that share k (groups_shared.cuh), or one with two sets of sums
#pragma once

#include "cuda/gemm_sm90/groups_ahead.cuh"
#include "cuda/gemm_sm90/groups_shared.cuh"

namespace trit::cuda {

/// acc = the sum over all groups of a tile, as bits of float32. Of two warpgroups that share k, `share` 0 has the result.
template <class T>
__device__ __forceinline__ void multiply_groups(const Ring& ring, RingPosition& position,
                                                const GemmSm90Parameters& p, std::int32_t warpgroup,
                                                std::int32_t share, std::int32_t thread, std::int32_t token,
                                                float* token_scales, std::uint32_t hand_over,
                                                std::int32_t (&result)[T::kRowBlocks][T::kAccumulators]) {
  if constexpr (T::kShares == 2) {
    multiply_groups_shared<T>(ring, position, p, share, thread, hand_over, result);
  } else {
    GroupSums<T> total(p, warpgroup, thread, token, token_scales);
    multiply_groups_ahead<T>(ring, position, p, warpgroup, thread, total, result);
  }
}

}  // namespace trit::cuda

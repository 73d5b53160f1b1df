// SPDX-License-Identifier: MIT
//
// lane_sum of the numerics contract in a block of 256 threads: thread j is accumulator j.
#pragma once

#include "cuda/common/platform.cuh"
#include "trit/quantize.h"

namespace trit::cuda {

static_assert(kLanes == 256, "a block of 256 threads holds the accumulators");
inline constexpr int kWarps = kLanes / 32;

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }

/// The sum over the accumulators of a warp, in every lane: lane l holds accumulators l + 32 i. acc[j] += acc[j + s]
/// for s = 128, 64, 32 within a lane, then 16, 8, 4, 2, 1 across lanes. (Both lanes of an exchange add the same two
/// values, and addition commutes.)
template <typename Value>
__device__ __forceinline__ Value tree_sum(Value (&v)[kWarps]) {
#pragma unroll
  for (int half = kWarps / 2; half >= 1; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; ++i) {
      v[i] = add(v[i], v[i + half]);
    }
  }
  Value sum = v[0];
#pragma unroll
  for (int step = 16; step >= 1; step /= 2) {
    sum = add(sum, __shfl_xor_sync(0xffffffffU, sum, step));
  }
  return sum;
}

/// The same, once they lie in shared memory and the block has synchronised. Every warp does all of it, which is
/// cheaper than another barrier.
template <typename Value>
__device__ __forceinline__ Value tree_sum(const Value* accumulators, int lane) {
  Value v[kWarps];
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    v[i] = accumulators[lane + 32 * i];
  }
  return tree_sum(v);
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// The stages of a rotation (docs/numerics.md) on values in registers: 1024 of a warp, 32 a lane.
#pragma once

#include "cuda/common/ptx.cuh"

namespace trit::cuda {

inline constexpr int kInputsPerWarp = 1024;
inline constexpr int kHeldInputs = 32;

/// Stages h = kFirst .. kLast of the rotation among a thread's registers.
template <int kFirst, int kLast, int kSize>
__device__ __forceinline__ void rotate_registers(float (&v)[kSize]) {
#pragma unroll
  for (int h = kFirst; h <= kLast; h *= 2) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if ((i & h) == 0) {
        const float a = v[i];
        const float b = v[i + h];
        v[i] = __fadd_rn(a, b);
        v[i + h] = __fsub_rn(a, b);
      }
    }
  }
}

/// From inputs 32 l + i of lane l to inputs 32 i + l, by the warp's 1024 floats of shared memory.
__device__ __forceinline__ void transpose_registers(float (&v)[kHeldInputs], float* exchange, int lane) {
#pragma unroll
  for (int i = 0; i < kHeldInputs / 4; ++i) {
    reinterpret_cast<float4*>(exchange)[8 * lane + (i ^ lane % 8)] = {v[4 * i], v[4 * i + 1], v[4 * i + 2],
                                                                      v[4 * i + 3]};
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kHeldInputs; ++i) {
    v[i] = exchange[32 * i + 4 * (lane / 4 ^ i % 8) + lane % 4];
  }
}

/// Stages h = 1024 and on: register i of all lanes with that of another warp.
__device__ __forceinline__ void rotate_warps(float (&v)[kHeldInputs], float* exchange, int block, int warp,
                                             int warps, int lane) {
  float* const own = exchange + kInputsPerWarp * warp;
  __syncwarp();
#pragma unroll 1
  for (int distance = 1; kInputsPerWarp * distance < block; distance *= 2) {
#pragma unroll
    for (int i = 0; i < kHeldInputs; ++i) {
      own[32 * i + lane] = v[i];
    }
    ptx::named_barrier(1, 32U * static_cast<unsigned>(warps));
    const float* const other = exchange + kInputsPerWarp * (warp ^ distance);
    const bool upper = (warp & distance) != 0;
#pragma unroll
    for (int i = 0; i < kHeldInputs; ++i) {
      const float b = other[32 * i + lane];
      v[i] = upper ? __fsub_rn(b, v[i]) : __fadd_rn(v[i], b);
    }
    ptx::named_barrier(1, 32U * static_cast<unsigned>(warps));
  }
}

}  // namespace trit::cuda

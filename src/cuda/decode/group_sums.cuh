// SPDX-License-Identifier: MIT
//
// What a warp of decode does with the sums of a segment: it leaves them in shared memory, or adds them up over the
// groups in its registers (groups.cu).
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/decode/tile.cuh"

namespace trit::cuda {

/// A word's two sums, of the first and the second token of a pair.
__device__ __forceinline__ std::uint32_t pack_sums(std::int32_t first, std::int32_t second) {
  return (static_cast<std::uint32_t>(first >> kCodeShift) & 0xffffU) | static_cast<std::uint32_t>(second)
                                                                           << (16 - kCodeShift);
}

/// A warp's sums of a segment; `to` is this lane's place of pair 0 and the warp's first row.
template <int kStrips, int kTokenTiles>
__device__ __forceinline__ void store_segment(Sums<kStrips, kTokenTiles>& sums, std::uint32_t* to,
                                              unsigned pairs, unsigned pair_stride, unsigned lane) {
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
    if (t * 4 + lane % 4 < pairs) {
#pragma unroll
      for (unsigned s = 0; s < kStrips; ++s) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
          to[t * 4 * pair_stride + s * kStripRows + 8 * h] =
              pack_sums(sums.of[s][t][2 * h], sums.of[s][t][2 * h + 1]);
        }
      }
    }
  }
  sums = {};
}

/// Q = 1: what a lane adds up over the groups. It has rows g and g + 8 of each strip, g = lane / 4, and tokens
/// 2 (lane % 4) and + 1 of each token tile.
template <int kStrips, int kTokenTiles>
struct LaneSums {
  float acc[kStrips][kTokenTiles][4] = {};

  /// Of a group; `scales`: of the warp's rows, in the order of prepared scales. `token_scales`: of the lane's tokens
  /// for the group, where tokens have any.
  __device__ __forceinline__ void add(const Groups& groups, Sums<kStrips, kTokenTiles>& sums,
                                      const std::uint8_t* scales,
                                      const float* const (&token_scales)[kTokenTiles][2], unsigned group,
                                      unsigned lane) {
    if (groups.half && !groups.token_groups) {
      // The weights' factor of 64 is taken into the scale, which is exact for every float16.
#pragma unroll
      for (unsigned s = 0; s < kStrips; ++s) {
        const std::uint32_t pair =
            *reinterpret_cast<const std::uint32_t*>(scales + (s * kStripRows + lane / 4 * 2) * 2);
        const float beta[2] = {
            __fmul_rn(ptx::from_float16(static_cast<std::uint16_t>(pair)), 1.0F / (1 << kCodeShift)),
            __fmul_rn(ptx::from_float16(static_cast<std::uint16_t>(pair >> 16U)), 1.0F / (1 << kCodeShift))};
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            acc[s][t][i] = __fmaf_rn(__int2float_rn(sums.of[s][t][i]), beta[i / 2], acc[s][t][i]);
          }
        }
      }
    } else {
#pragma unroll
      for (unsigned s = 0; s < kStrips; ++s) {
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const unsigned at = s * kStripRows + lane / 4 * 2 + i / 2;
            float w = groups.half ? scale_at<true>(scales, at) : scale_at<false>(scales, at);
            if (groups.token_groups) {
              w = __fmul_rn(w, token_scales[t][i % 2][group]);
            }
            acc[s][t][i] = __fmaf_rn(__int2float_rn(sums.of[s][t][i] >> kCodeShift), w, acc[s][t][i]);
          }
        }
      }
    }
    sums = {};
  }
};

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// What a warp of decode does with the sums of a segment: it leaves them in shared memory (groups.cu).
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

}  // namespace trit::cuda

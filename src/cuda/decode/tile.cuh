// SPDX-License-Identifier: MIT
//
// What decode's two kernels (kernel.cu, groups.cu) share: a warp's tile of weights and its products.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/ptx.cuh"

namespace trit::cuda {

template <int kStrips>
struct Weights {
  uint4 strip[kStrips];  // a lane's 16 bytes of each
};

/// A lane's bytes of a tile to its place in the ring.
template <int kStrips>
__device__ __forceinline__ void copy_weights(std::uint8_t* slot, const std::uint8_t* lane_weights) {
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
    ptx::cp_async_16(slot + s * kStripBytes, lane_weights + s * kStripBytes);
  }
}

/// And from there, once it has arrived.
template <int kStrips>
__device__ __forceinline__ Weights<kStrips> load_weights(const std::uint8_t* slot) {
  Weights<kStrips> weights;
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    weights.strip[i] = *reinterpret_cast<const uint4*>(slot + i * kStripBytes);
  }
  return weights;
}

/// A lane's addresses for ldmatrix in each token tile of a part of x.
template <int kTokenTiles>
__device__ __forceinline__ void start_lane_x(const std::uint8_t* (&lane_x)[kTokenTiles],
                                             const std::uint8_t* x, unsigned x_stride, unsigned tokens,
                                             unsigned lane) {
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
    lane_x[t] = x + min(t * 8 + lane % 8, tokens - 1) * x_stride + lane / 8 * 16;
  }
}

template <int kStrips, int kTokenTiles>
struct Sums {
  std::int32_t of[kStrips][kTokenTiles][4];
};

/// One tile of 128 inputs; `word_done(word)` comes after each of its four words. lane_x[t]: this lane's address
/// for ldmatrix in token tile t, at the tile's first input.
template <int kStrips, int kTokenTiles, typename WordDone>
__device__ __forceinline__ void multiply_tile(Sums<kStrips, kTokenTiles>& sums,
                                              const Weights<kStrips>& weights,
                                              const std::uint8_t* const (&lane_x)[kTokenTiles],
                                              const WordDone& word_done) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 64 inputs: two words, one ldmatrix.x4 per 8 tokens
    std::uint32_t x[kTokenTiles][4];
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      ptx::ldmatrix_x4(x[t], lane_x[t] + half * 64);
    }
#pragma unroll
    for (int word = 0; word < 2; ++word) {
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        std::uint32_t a[4];
        unpack(a, word_of(weights.strip[s], 2 * half + word));
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          ptx::mma_m16n8k32(sums.of[s][t], a, x[t][2 * word], x[t][2 * word + 1]);
        }
      }
      word_done(2 * half + word);
    }
  }
}

/// A barrier of the warps of one q, which share a part of x.
__device__ __forceinline__ void part_barrier(unsigned q, unsigned row_warps) {
  if (row_warps == 1) {
    __syncwarp();
  } else {
    ptx::named_barrier(1 + q, 32 * row_warps);
  }
}

/// start<kStrips, kTokenTiles>() with the tile for so many tokens.
template <typename Start>
void start_with_tile(int tokens, int strips, const Start& start) {
  if (tokens > 8) {
    start.template operator()<2, 2>();
  } else if (strips == 4) {
    start.template operator()<4, 1>();
  } else {
    start.template operator()<2, 1>();
  }
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// What both kernels of decode_one share: how a tile of weights is multiplied by one token, and how the sums
// of the warps are added.
//
// Of the eight columns of mma.m16n8k32 one token needs one, so the others are used to unpack with one
// instruction per register instead of two. Register r of a word is
//
//   (word ^ 0xaaaaaaaa) & (0xc0c0c0c0 >> 2r)   four unsigned bytes (t + 2) << (6 - 2r),
//
// because flipping the upper bit of a two's complement code t gives t + 2. The registers of a fragment then
// have factors 64 (row g, inputs 0..15), 16 (row g + 8, 0..15), 4 (row g, 16..31) and 1 (row g + 8, 16..31).
// Column 0 holds inputs 0..15 of x and zeros, column 1 zeros and inputs 16..31, so a lane with lane % 4 == 0
// has four sums that are of one factor each:
//
//   sum[g] = (d[0] >> 6) + (d[1] >> 2),   sum[g + 8] = (d[2] >> 4) + d[3],   both minus 2 * (sum of q)
//
// All shifts are exact. Every warp copies its own part of q to shared memory and adds it up in passing.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/decode_one/decode_one.h"

namespace trit::cuda::one {

__device__ __forceinline__ std::int32_t add_bytes(std::uint32_t four, std::int32_t sum) {
  return __dp4a(static_cast<int>(four), 0x01010101, sum);
}

/// Where a lane's row of ldmatrix is. Row l % 8 of matrix l / 8 is column l % 8 of inputs 16 (l / 8) .. + 15:
/// columns 0 and 1 take them in turn, the other columns are zeros, in banks that hold no inputs.
struct LaneInputs {
  std::uint32_t address;
  std::uint32_t step;  // from tile to tile
};
__device__ __forceinline__ LaneInputs lane_inputs(unsigned lane, std::uint32_t zeros, std::uint32_t x) {
  const unsigned matrix = lane / 8;
  const bool real = (0x02010201U >> lane & 1U) != 0;  // lane % 8 == matrix % 2
  return {real ? x + matrix * 16 : zeros + (matrix + 1) % 4 * 16, real ? kTileInputs : 0U};
}

/// A lane's weights of kTiles tiles from `begin` on, which is less than `end`; zeros for those from `end` on.
template <int kTiles, int kStrips>
__device__ __forceinline__ void load_tiles(uint4 (&weights)[kTiles][kStrips], const std::uint8_t* from,
                                           unsigned begin, unsigned end) {
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    if (t == 0 || begin + t < end) {
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        weights[t][i] = ptx::load_once_16(from + t * kTileBytes + i * kStripBytes);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        weights[t][i] = {};
      }
    }
  }
}

/// sums += strips of 16 rows x 128 inputs; x[h]: this lane's address for ldmatrix in the h-th 64 of them, less 64 h.
/// `flip` is 0xaaaaaaaa: as a constant the compiler would split (word ^ flip) & mask in two instructions.
template <int kSets, int kStrips>
__device__ __forceinline__ void multiply_tile(std::int32_t (&sums)[kSets][kStrips][4],
                                              const uint4 (&weights)[kStrips], const std::uint32_t (&x)[2],
                                              std::uint32_t flip) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 64 inputs: two words
    std::uint32_t columns[4];
    ptx::ldmatrix_x4(columns, x[half] + half * 64);
#pragma unroll
    for (int word = 0; word < 2; ++word) {
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        const std::uint32_t codes = word_of(weights[i], 2 * half + word);
        const std::uint32_t u[4] = {
            ptx::and_of_xor(codes, flip, 0xc0c0c0c0U), ptx::and_of_xor(codes, flip, 0x30303030U),
            ptx::and_of_xor(codes, flip, 0x0c0c0c0cU), ptx::and_of_xor(codes, flip, 0x03030303U)};
        ptx::mma_m16n8k32_u8(sums[word % kSets][i], u, columns[2 * word], columns[2 * word + 1]);
      }
    }
  }
}
template <int kSets, int kStrips>
__device__ __forceinline__ void multiply_tile(std::int32_t (&sums)[kSets][kStrips][4],
                                              const uint4 (&weights)[kStrips], std::uint32_t x,
                                              std::uint32_t flip) {
  const std::uint32_t both[2] = {x, x};
  multiply_tile(sums, weights, both, flip);
}

/// The two rows' sums of a lane with lane % 4 == 0, of inputs whose q add up to x_sum.
__device__ __forceinline__ void row_sums(const std::int32_t (&d)[4], std::int32_t x_sum,
                                         std::int32_t (&rows)[2]) {
  rows[0] = (d[0] >> 6) + (d[1] >> 2) - 2 * x_sum;
  rows[1] = (d[2] >> 4) + d[3] - 2 * x_sum;
}

/// Adds a warp's sums to the block's in shared memory; `x_sum` is the sum of the warp's part of q.
template <int kSets, int kStrips>
__device__ __forceinline__ void add_sums(std::int32_t* rows, unsigned lane,
                                         const std::int32_t (&sums)[kSets][kStrips][4], std::int32_t x_sum) {
  if (lane % 4 != 0) {
    return;
  }
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    std::int32_t d[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      d[j] = sums[0][i][j] + (kSets == 2 ? sums[kSets - 1][i][j] : 0);
    }
    std::int32_t two[2];
    row_sums(d, x_sum, two);
    atomicAdd(rows + i * kStripRows + lane / 4, two[0]);
    atomicAdd(rows + i * kStripRows + lane / 4 + 8, two[1]);
  }
}

/// What a row's output needs beside its sum.
struct RowFactors {
  float beta = 0.0F;
  float bias = -0.0F;
};
template <bool kScale = true>
__device__ __forceinline__ RowFactors load_factors(const Output& out, unsigned row) {
  return {kScale ? out.weight_scale[out.scale_per_row ? row : 0] : 0.0F,
          out.bias == nullptr ? -0.0F : out.bias[row]};
}

}  // namespace trit::cuda::one

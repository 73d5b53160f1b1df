// SPDX-License-Identifier: MIT
//
// A strip of a tile (fragments.cuh), 16 rows of 128 weights, from floats to both packed forms by one warp. Lane l takes
// inputs 4 l .. 4 l + 3 of each row, so that a load of the warp is 512 bytes of one row; a lane of the prepared form holds
// weights of two rows and eight places, so the codes change hands in shared memory.
#pragma once

#include "cuda/rows/strip_fragment.cuh"
#include "cuda/rows/ternary.cuh"
#include "trit/cuda.h"

namespace trit::cuda {

inline constexpr int kStripLoads = kStripRows / 2;  // rows whose weights a lane holds at once
/// Bytes between rows of codes in shared memory: 12 words, so that eight rows lie in different banks.
inline constexpr int kStripPitch = 48;

/// A matrix W [N, K]. kVector: K is a multiple of 4 and w aligned to 16 bytes.
template <bool kVector>
struct StripSource {
  const float* w;
  std::int64_t out_features;
  std::int64_t in_features;

  /// Weights of rows `row` .. row + 7; 0, which has code 0, where there are none.
  __device__ __forceinline__ void load(std::int64_t row, std::int64_t tile, int lane,
                                       float4 (&v)[kStripLoads]) const {
    const std::int64_t column = tile * kTileInputs + 4 * lane;
    const float* at = w + row * in_features + column;
#pragma unroll
    for (int j = 0; j < kStripLoads; ++j, at += in_features) {
      v[j] = float4{};
      if (row + j >= out_features || column >= in_features) {
        continue;
      }
      if constexpr (kVector) {
        v[j] = *reinterpret_cast<const float4*>(at);
      } else {
        v[j].x = at[0];
        v[j].y = column + 1 < in_features ? at[1] : 0.0F;
        v[j].z = column + 2 < in_features ? at[2] : 0.0F;
        v[j].w = column + 3 < in_features ? at[3] : 0.0F;
      }
    }
  }
};

/// Codes of rows 8 `half` .. + 7 of a strip to `bytes` [16][kStripPitch], in shared memory: a lane's weights are a stored
/// byte. `inverse(row)` is that of beta of row 0 .. 15 at this lane's inputs.
template <typename Inverse>
__device__ __forceinline__ void make_strip_codes(const float4 (&v)[kStripLoads], int half, int lane,
                                                 std::uint8_t* bytes, const Inverse& inverse) {
#pragma unroll
  for (int j = 0; j < kStripLoads; ++j) {
    const int own = half * kStripLoads + j;
    bytes[own * kStripPitch + lane] = static_cast<std::uint8_t>(ternary_byte(v[j], inverse(own)));
  }
}

/// The stored bytes of 16 rows from `row` on, in shared memory, to `codes` [N, ceil(K / 4)].
__device__ __forceinline__ void store_strip_codes(const std::uint8_t* bytes, std::int64_t row,
                                                  std::int64_t tile, std::int64_t out_features,
                                                  std::int64_t in_features, int lane, std::uint8_t* codes) {
  constexpr int kRowBytes = kTileInputs / 4;
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  if (row_bytes % 16 == 0 && reinterpret_cast<std::uintptr_t>(codes) % 16 == 0) {
    const std::int64_t own_row = row + lane / 2;
    const std::int64_t column = tile * kRowBytes + lane % 2 * 16;
    if (own_row < out_features && column < row_bytes) {
      *reinterpret_cast<uint4*>(codes + own_row * row_bytes + column) =
          *reinterpret_cast<const uint4*>(bytes + lane / 2 * kStripPitch + lane % 2 * 16);
    }
    return;
  }
  const std::int64_t column = tile * kRowBytes + lane;
#pragma unroll 4
  for (int j = 0; j < kStripRows; ++j) {
    if (row + j < out_features && column < row_bytes) {
      codes[(row + j) * row_bytes + column] = bytes[j * kStripPitch + lane];
    }
  }
}

/// Tile `tile` of the strip of rows `row` .. + 15 from `bytes`, which the warp has just written and may write again
/// afterwards, to both packed forms.
__device__ __forceinline__ void store_strip(const PackWeights& a, const std::uint8_t* bytes, std::int64_t row,
                                            std::int64_t tile, std::int64_t tiles, int lane) {
  __syncwarp();
  store_strip_codes(bytes, row, tile, a.out_features, a.in_features, lane, a.codes);
  *reinterpret_cast<uint4*>(a.weights + tile_offset(row / kTileRows, tile, tiles) +
                            row % kTileRows / kStripRows * kStripBytes + lane * 16) =
      strip_fragment([&](int down, int along) {
        return std::uint32_t{bytes[(lane / 4 + down) * kStripPitch + lane % 4 + along]};
      });
  __syncwarp();
}

}  // namespace trit::cuda

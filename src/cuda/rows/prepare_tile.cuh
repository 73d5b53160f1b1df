// SPDX-License-Identifier: MIT
//
// A tile of frag64x128 (fragments.cuh) by 128 threads: each makes the 16 bytes of one lane of one strip, rows
// g and g + 8, and of each 4 inputs in every 16. Four weights that are neighbours in k are one stored byte,
// and one A register's share of one word; so a word is four of them.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/platform.cuh"

namespace trit::cuda {

inline constexpr int kTileThreads = 128;  // the lanes of a tile
static_assert(kTileThreads * 16 == kTileBytes);

/// The 16 bytes of a lane of a strip. `stored_byte(down, along)` is the stored byte of a place relative to the lane's first
/// one, row lane / 4 of the strip and byte lane % 4 of the tile's 32: 0 or 8 rows down and 0, 4, .. 28 bytes along. It is
/// asked once for each.
template <typename StoredByte>
__device__ __forceinline__ uint4 strip_fragment(StoredByte stored_byte) {
  std::uint32_t words[4];
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    words[word] = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      words[word] |= word_of_codes(stored_byte(8 * (r % 2), 8 * word + 4 * (r / 2)), r);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// Tile number `tile` by thread 0 .. 127. `stored_byte(row, i)` is the stored byte of inputs 4 i .. 4 i + 3
/// of a row that exists; it is asked once for each.
template <typename StoredByte>
__device__ __forceinline__ void prepare_tile(std::int64_t tile, int thread, std::int64_t out_features,
                                             std::int64_t in_features, std::uint8_t* weights,
                                             StoredByte stored_byte) {
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const std::int64_t tiles_along_k = ceil_div<std::int64_t>(in_features, kTileInputs);
  const std::int64_t n = tile / tiles_along_k;
  const std::int64_t k = tile % tiles_along_k;
  const std::int64_t first_row = n * kTileRows + thread / 32 * kStripRows + thread % 32 / 4;
  const std::int64_t first_byte = k * (kTileInputs / 4) + thread % 4;
  *reinterpret_cast<uint4*>(weights + tile_offset(n, k, tiles_along_k) + thread * 16) =
      strip_fragment([&](int down, int along) {
        const std::int64_t row = first_row + down;
        const std::int64_t i = first_byte + along;
        return row < out_features && i < row_bytes ? stored_byte(row, i) : 0U;
      });
}

}  // namespace trit::cuda

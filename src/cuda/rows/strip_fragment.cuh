// SPDX-License-Identifier: MIT
//
// Stored codes to frag64x128 (fragments.cuh): four weights that are neighbours in k are one stored byte, and one
// A register's share of one word; so a word is four of them.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/platform.cuh"

namespace trit::cuda {

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

}  // namespace trit::cuda

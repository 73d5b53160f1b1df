// SPDX-License-Identifier: MIT
//
// frag64x128: the one layout of weights on a GPU. mma.sync m16n8k32 (sm_80 and newer) and wgmma m64nNk32
// (sm_90a) read it with one 16-byte load per lane and unpack it with one shift and one AND per four weights.
//
// A tile is 64 output rows x 128 inputs in 2 KiB; the tiles of a block of 64 rows follow each other along k.
// Missing rows and inputs are zero weights, which add nothing.
//
//   tile      strip 0 (rows 0..15)  strip 1 (16..31)  strip 2  strip 3          512 bytes each
//   strip     lane 0   lane 1   ...   lane 31                                   16 bytes each
//   lane      word 0 (k 0..31)  word 1 (k 32..63)  word 2 (64..95)  word 3      4 bytes each, one step of mma
//
//   word, with g = lane / 4, c = lane % 4:
//     byte      3                 2                 1                 0
//     bits   76 54 32 10       76 54 32 10       76 54 32 10       76 54 32 10
//     A reg   0  1  2  3        0  1  2  3        0  1  2  3        0  1  2  3
//     k        4c + 3            4c + 2            4c + 1            4c
//
//   Registers 0 and 1 hold these k, 2 and 3 those 16 further; 0 and 2 are row g, 1 and 3 row g + 8.
//
// A code is 2-bit two's complement (0, 1, and 3 for -1). Shifted left by 2r, the two top bits of each byte
// are those of A register r: as int8 that is 64 t. The factor of 64 leaves the sum by an exact shift right by
// 6; it limits one int32 sum to 64 * 128 * K < 2^31, K <= 262,143.
#pragma once

#include "cuda/common/platform.cuh"

namespace trit::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileInputs = 128;
inline constexpr int kStripRows = 16;
inline constexpr int kStripBytes = 512;
inline constexpr int kTileBytes = 2048;
static_assert(kTileBytes * 4 == kTileRows * kTileInputs, "a weight takes 2 bits");
static_assert(kStripBytes * (kTileRows / kStripRows) == kTileBytes, "four strips are a tile");

/// Strips of a matrix: of whole tiles, whatever its rows.
__host__ __device__ constexpr int strips_of(std::int64_t out_features) {
  return static_cast<int>(ceil_div<std::int64_t>(out_features, kTileRows)) * (kTileRows / kStripRows);
}

/// Sums of 64 t q are shifted right by this many bits to become sums of t q.
inline constexpr int kCodeShift = 6;
/// The same as a factor of floats.
inline constexpr float kWeightFactor = 1.0F / (1 << kCodeShift);
/// Tiles along k that one int32 accumulator may add up: 2047 * 128 = 262,016 inputs.
inline constexpr int kMaxTilesPerSum = 2047;
static_assert(std::int64_t{kMaxTilesPerSum} * kTileInputs * 64 * 128 < (std::int64_t{1} << 31));

/// Where the tile of rows 64 n .. and inputs 128 k .. starts.
__host__ __device__ constexpr std::int64_t tile_offset(std::int64_t n, std::int64_t k,
                                                       std::int64_t tiles_along_k) {
  return (n * tiles_along_k + k) * kTileBytes;
}

/// A register r = 0..3 of a word: four int8 of value 64 t.
template <int r>
__device__ __forceinline__ std::uint32_t unpack(std::uint32_t word) {
  static_assert(r >= 0 && r < 4);
  return (word << (2 * r)) & 0xc0c0c0c0U;
}
/// All four.
__device__ __forceinline__ void unpack(std::uint32_t (&a)[4], std::uint32_t word) {
  a[0] = unpack<0>(word);
  a[1] = unpack<1>(word);
  a[2] = unpack<2>(word);
  a[3] = unpack<3>(word);
}

/// Word i of a lane's 16 bytes; i is known at compile time.
__device__ __forceinline__ std::uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : (i == 1 ? v.y : (i == 2 ? v.z : v.w));
}

/// The bits of a word that hold four codes (code b in bits 2b, 2b + 1, as a stored byte has them) of A
/// register r.
__host__ __device__ constexpr std::uint32_t word_of_codes(std::uint32_t four_codes, int r) {
  const std::uint32_t spread =
      (four_codes & 3U) | (four_codes & 0xcU) << 6 | (four_codes & 0x30U) << 12 | (four_codes & 0xc0U) << 18;
  return spread << (6 - 2 * r);
}

}  // namespace trit::cuda

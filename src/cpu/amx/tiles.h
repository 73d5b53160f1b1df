// SPDX-License-Identifier: MIT
//
// The tile instructions: eight tiles of 16 rows of 64 bytes. Not the compilers' intrinsics: gcc 12's do not
// say that they read and write memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace trit::amx {

inline constexpr std::int64_t kTileRows = 16;
inline constexpr std::int64_t kTileRowBytes = 64;
inline constexpr std::int64_t kTileBytes = kTileRows * kTileRowBytes;

/// A tile in memory, in one piece.
struct [[gnu::may_alias]] Tile {
  std::int8_t bytes[kTileBytes];
};

/// The tile that begins kOffset bytes behind `from`.
template <int kTile, std::int64_t kOffset = 0>
[[gnu::always_inline]] inline void load_tile(const std::int8_t* from) {
  asm volatile("tileloadd %c4(%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(kTileRowBytes), "i"(kTile),
                 "m"(*reinterpret_cast<const Tile*>(from + kOffset)), "i"(kOffset));
}
/// Without filling L1, for what is used once.
template <int kTile, std::int64_t kOffset = 0>
[[gnu::always_inline]] inline void load_tile_once(const std::int8_t* from) {
  asm volatile("tileloaddt1 %c4(%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(kTileRowBytes), "i"(kTile),
                 "m"(*reinterpret_cast<const Tile*>(from + kOffset)), "i"(kOffset));
}
template <int kTile>
[[gnu::always_inline]] inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kSum, int kQ, int kWeights>
[[gnu::always_inline]] inline void multiply() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kQ), "i"(kWeights));
}
/// Pairs of bf16 instead of four bytes.
template <int kSum, int kFloats, int kPairs>
[[gnu::always_inline]] inline void multiply_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kFloats), "i"(kPairs));
}
/// Rows `stride` bytes apart.
template <int kTile>
[[gnu::always_inline]] inline void load_tile(const void* from, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void store_tile(void* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}
/// To 1 KiB in one piece; the compiler knows that nothing else is written.
template <int kTile>
[[gnu::always_inline]] inline void store_tile(std::int8_t* to) {
  asm volatile("tilestored %%tmm%c3, (%1,%2,1)"
               : "=m"(*reinterpret_cast<Tile*>(to))
               : "r"(to), "r"(kTileRowBytes), "i"(kTile));
}

/// Tiles 0 to 4, the sums and a q, `rows` rows of 64 bytes, the others 16, for the time of a call. A product takes
/// a cycle for each row of q. Released at the end: a thread whose tiles
/// are in their initial state costs nothing at a context switch. Both together take about 200 cycles.
class TileConfiguration {
 public:
  explicit TileConfiguration(std::int64_t rows) {
    struct alignas(64) {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    static_assert(sizeof configuration == 64);
    std::fill_n(configuration.rows, 5, static_cast<std::uint8_t>(rows));
    asm volatile("ldtilecfg %0" : : "m"(configuration));
  }
  ~TileConfiguration() { asm volatile("tilerelease"); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;
};

}  // namespace trit::amx

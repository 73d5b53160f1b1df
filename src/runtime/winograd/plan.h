// SPDX-License-Identifier: MIT
//
// Part of tile_rows.h: registers, and the sizes of what a task keeps in scratch memory.
#pragma once

/// Floats as a register of 4, 8 or 16.
template <int Lanes>
struct Vec {
  typedef float Register __attribute__((vector_size(Lanes * 4)));
  typedef float Memory __attribute__((vector_size(Lanes * 4), aligned(4), may_alias));
  static Register load(const float* p) { return *reinterpret_cast<const Memory*>(p); }
  static void store(float* p, Register v) { *reinterpret_cast<Memory*>(p) = v; }
};

__attribute__((always_inline)) inline __m128 fma(__m128 a, __m128 b, __m128 c) {
  return _mm_fmadd_ps(a, b, c);
}
__attribute__((always_inline)) inline __m256 fma(__m256 a, __m256 b, __m256 c) {
  return _mm256_fmadd_ps(a, b, c);
}

/// Channels of an input that are transformed at a time: a register's, or 4 where there are no more.
constexpr int kFewChannels = 4;
constexpr int kLanes = Isa::kLanes;
constexpr int kBlock = 2 * kLanes;
constexpr int kTilesOfBlock = Isa::kTilesOfBlock;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// Sizes of a task, in floats.
struct Plan {
  std::int64_t lanes_in;    // C
  std::int64_t channels;    // whole groups of C
  std::int64_t columns;     // of tiles
  std::int64_t packed_row;  // of x
  std::int64_t outputs;     // whole blocks
  std::int64_t tile_out;    // outputs of a tile's side that are stored: 4, or 2 behind the pool
  std::int64_t packed;      // these four: scratch memory
  std::int64_t v_point;     // between two points of v, kPointStride's kind
  std::int64_t v, m, result;

  Plan(const ConvolutionShape& shape, std::int64_t rows)
      : lanes_in(shape.channels <= kFewChannels ? kFewChannels : kLanes),
        channels(round_up(shape.channels, lanes_in)),
        columns((shape.convolved_width() + kTile - 1) / kTile),
        packed_row((columns * kTile + kWindow - 1) * channels),
        outputs(round_up(shape.out_channels, kBlock)),
        tile_out(shape.pool ? kTile / 2 : kTile),
        packed(round_up((rows * kTile + kWindow - 1) * packed_row, 16)),
        v_point(kTilesOfBlock * channels + 16),
        v(kPoints * v_point),
        m(kPoints * kPointStride),
        result(rows * tile_out * columns * tile_out * outputs) {}

  /// Floats between two points of m: one cache line more than the tiles take, or all 36 values of a tile
  /// would lie in a few sets of L1.
  static constexpr std::int64_t kPointStride = kTilesOfBlock * kBlock + 16;
  std::int64_t all() const { return packed + v + m + result; }
};

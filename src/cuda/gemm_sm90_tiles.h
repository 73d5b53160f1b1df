// SPDX-License-Identifier: MIT
//
// Which tile the Hopper GEMM takes for a shape: two tables, and an estimate in clocks of what each row would
// cost.
//
// The estimate knows what bounds a step of 128 inputs (the tensor cores, the A operand, the second-level
// cache), how many waves of blocks there are, and what a tile costs beside its steps. Its constants come from
// measurements of earlier kernels of this form on an H200; the choices have not been timed with these
// kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

namespace trit::cuda {

enum class GemmSm90Kernel : std::uint8_t { persistent, split };

struct GemmSm90Tile {
  GemmSm90Kernel kernel;
  std::int32_t rows;    // output rows
  std::int32_t tokens;  // wgmma's N
  std::string_view reason;
};

/// In the order of bytes per operation: a later row must be estimated 4 % faster than the best before it.
inline constexpr std::array<GemmSm90Tile, 18> kGemmSm90Tiles = {{
    {GemmSm90Kernel::persistent, 256, 128, "fewest bytes per operation: 24 KB for 8.4 MOP a step"},
    {GemmSm90Kernel::persistent, 128, 256,
     "the same work where N / 256 leaves a ragged wave; more token bytes"},
    {GemmSm90Kernel::persistent, 256, 112, "M or N between the waves of 256x128 and 256x96"},
    {GemmSm90Kernel::persistent, 256, 96,
     "14336 wide, M = 1024: 4.67 waves, where 256x128 has 3.4, rounded to 4"},
    {GemmSm90Kernel::persistent, 128, 160, "2560 wide, M = 4096: 520 tiles in 3.94 waves"},
    {GemmSm90Kernel::persistent, 256, 64,
     "short M with many rows; the smallest token tile that the A operand allows"},
    {GemmSm90Kernel::persistent, 256, 80, "2560 wide, M = 1024: 130 tiles, one wave of 132 multiprocessors"},
    {GemmSm90Kernel::persistent, 128, 192, "waves between 128x160 and 128x256"},
    {GemmSm90Kernel::persistent, 128, 128, "4096 wide, M = 1024: 256 tiles in 1.94 waves"},
    {GemmSm90Kernel::persistent, 128, 96, "M <= 96 with N / 128 near the number of multiprocessors"},
    {GemmSm90Kernel::persistent, 128, 64, "M <= 64, likewise"},
    {GemmSm90Kernel::split, 128, 32,
     "M <= 32: every k-step costs the A operand's 40 clocks, however few tokens"},
    {GemmSm90Kernel::split, 128, 64, "M <= 64: the last token tile that is bound by the A operand alone"},
    {GemmSm90Kernel::split, 128, 96, "M = 96, and M = 256 on narrow matrices: three token tiles"},
    {GemmSm90Kernel::split, 128, 128, "M = 128, 256: the A operand is read once per 128 tokens"},
    {GemmSm90Kernel::split, 256, 32, "wide matrices: half of the token traffic of 128x32"},
    {GemmSm90Kernel::split, 256, 64, "wide matrices: half of the token traffic of 128x64"},
    {GemmSm90Kernel::split, 256, 96, "M <= 96, wide; 96 accumulators, the most without setmaxnreg"},
}};

/// Blocks of a portable cluster.
inline constexpr std::int32_t kMaxGemmSm90Split = 8;
/// Those that are considered: blocks of a cluster that share K. 6 and 7 fit the chip badly (102 and 112 of
/// 132 multiprocessors) and own octets unevenly.
inline constexpr std::array<std::int32_t, 6> kGemmSm90Splits = {1, 2, 3, 4, 5, 8};

/// Clusters of `split` blocks that run at once on `multiprocessors`: they must fit into the chip's groups of
/// 16 or 18, so 132 multiprocessors hold 66, 39, 30, 22 and 15 clusters of 2, 3, 4, 5 and 8.
constexpr std::int32_t clusters_that_fit(std::int32_t split, std::int32_t multiprocessors) {
  constexpr std::array<std::int32_t, 9> kOf132 = {0, 132, 66, 39, 30, 22, 17, 16, 15};
  return std::max(1, kOf132[static_cast<std::size_t>(split)] * multiprocessors / 132);
}

/// The largest split of a tile: the parts of 256 x 96 outputs from five blocks would leave a ring of two
/// stages.
constexpr std::int32_t largest_split(const GemmSm90Tile& tile) {
  if (tile.kernel == GemmSm90Kernel::persistent) {
    return 1;
  }
  return tile.rows == 256 ? 4 : kMaxGemmSm90Split;
}

struct GemmSm90Choice {
  GemmSm90Tile tile;
  std::int32_t split;   // blocks per tile, 1 for the persistent kernel
  std::int64_t clocks;  // the estimate
};

/// Clocks of 128 inputs of a tile on one multiprocessor.
constexpr std::int64_t step_clocks(const GemmSm90Tile& tile) {
  const std::int64_t tensor = std::int64_t{tile.rows} * tile.tokens / 32;  // 4096 multiply-adds a clock
  const std::int64_t operand = std::int64_t{tile.rows} / 64 * 4 * 40;      // 2 KiB of A registers per wgmma
  const std::int64_t cache = (std::int64_t{tile.rows} * 32 + tile.tokens * 128) / 38;  // bytes at 38 a clock
  // Below this the persistent kernel's producers, one barrier wait and three copies per 128 inputs, would be
  // the limit.
  const std::int64_t producer = tile.kernel == GemmSm90Kernel::persistent ? 400 : 0;
  return std::max({tensor * 11 / 10, operand * 11 / 10, cache * 11 / 10, producer});
}

/// Clocks of everything for one shape, beside launch and the first bytes, which all tiles pay alike.
constexpr std::int64_t estimated_clocks(const GemmSm90Tile& tile, std::int32_t split, std::int64_t tokens,
                                        std::int64_t out_features, std::int64_t in_features,
                                        std::int32_t multiprocessors) {
  const std::int64_t tiles =
      (out_features + tile.rows - 1) / tile.rows * ((tokens + tile.tokens - 1) / tile.tokens);
  const std::int64_t k_tiles = (in_features + 127) / 128;
  if (tile.kernel == GemmSm90Kernel::persistent) {
    const std::int64_t waves = (tiles + multiprocessors - 1) / multiprocessors;
    const std::int64_t outputs = std::int64_t{tile.rows} * tile.tokens * 7 / 128;  // 7 instructions an output
    return waves * (k_tiles * step_clocks(tile) + outputs);
  }
  const std::int64_t slots = clusters_that_fit(split, multiprocessors);
  const std::int64_t waves = (tiles + slots - 1) / slots;
  const std::int64_t steps = ((k_tiles + 1) / 2 + split - 1) / split;
  const std::int64_t exchange = 600 + std::int64_t{tile.rows} * tile.tokens / 16;  // st.async, sums, stores
  const std::int64_t start = 900;  // nothing of the next block is fetched while this one ends
  return waves * (2 * steps * step_clocks(tile) + exchange + start) - start;
}

/// Above this many tokens the persistent kernel has tiles enough.
inline constexpr std::int64_t kMaxSplitTokens = 512;

constexpr GemmSm90Choice choose_gemm_sm90(std::int64_t tokens, std::int64_t out_features,
                                          std::int64_t in_features, std::int32_t multiprocessors) {
  GemmSm90Choice best{kGemmSm90Tiles[0], 1, INT64_MAX};
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    const bool splits = tile.kernel == GemmSm90Kernel::split;
    if (splits && tokens > kMaxSplitTokens) {
      continue;
    }
    for (const std::int32_t split : kGemmSm90Splits) {
      // A block without a step would send zeros and wait: not worth a launch.
      if (split > largest_split(tile) || (split > 1 && (in_features + 255) / 256 < split)) {
        break;
      }
      const std::int64_t clocks =
          estimated_clocks(tile, split, tokens, out_features, in_features, multiprocessors);
      if (best.clocks == INT64_MAX || clocks * 25 < best.clocks * 24) {
        best = {tile, split, clocks};
      }
    }
  }
  return best;
}

}  // namespace trit::cuda

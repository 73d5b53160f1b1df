// SPDX-License-Identifier: MIT
//
// Which tile the Hopper GEMM takes for a shape: a table of tiles, and an estimate of each one's clocks.
//
// The estimate models what bounds a step of 128 inputs (the tensor cores, the A operand, the second-level
// cache, the producers), the number of waves of blocks, and the cost of a tile beside its steps. Its
// constants are fitted to the times of 1,700 launches on an H200 (bench_cuda --tune: eight shapes, 16 to 4096
// tokens, every tile and split). Its choice was the fastest there, or within 2 % of it, for every shape.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

namespace trit::cuda {

enum class GemmSm90Kernel : std::uint8_t { persistent, split };

struct GemmSm90Tile {
  GemmSm90Kernel kernel;
  std::int32_t rows;    // output rows
  std::int32_t tokens;  // wgmma's N, with group scales one or more pieces of it
  bool operator==(const GemmSm90Tile&) const = default;
};

/// In the order of bytes per operation: the first of equals is taken.
inline constexpr std::array<GemmSm90Tile, 18> kGemmSm90Tiles = {{
    {GemmSm90Kernel::persistent, 256, 128},  // fewest bytes per operation: 24 KB for 8.4 MOP a step
    {GemmSm90Kernel::persistent, 128, 256},  // the same work where N / 256 leaves a ragged wave
    {GemmSm90Kernel::persistent, 256, 112},  // M or N between the waves of 256x128 and 256x96
    {GemmSm90Kernel::persistent, 256, 96},   // 14336 wide, M = 1024: 4.67 waves; 256x128 has 3.4, so 4
    {GemmSm90Kernel::persistent, 128, 160},  // 2560 wide, M = 4096: 520 tiles in 3.94 waves
    {GemmSm90Kernel::persistent, 256, 64},   // short M, many rows; the A operand allows no smaller token tile
    {GemmSm90Kernel::persistent, 256, 80},   // 2560 wide, M = 1024: 130 tiles, one wave of 132
    {GemmSm90Kernel::persistent, 128, 192},  // waves between 128x160 and 128x256
    {GemmSm90Kernel::persistent, 128, 128},  // 4096 wide, M = 1024: 256 tiles in 1.94 waves
    {GemmSm90Kernel::persistent, 128, 96},   // M <= 96 with N / 128 near the number of multiprocessors
    {GemmSm90Kernel::persistent, 128, 64},   // M <= 64, likewise
    {GemmSm90Kernel::split, 128, 32},        // M <= 32: a k-step costs the A operand's 40 clocks in any case
    {GemmSm90Kernel::split, 128, 64},        // M <= 64: the last that the A operand alone bounds
    {GemmSm90Kernel::split, 128, 96},        // M = 96, and M = 256 on narrow matrices: three token tiles
    {GemmSm90Kernel::split, 128, 128},       // M = 128, 256: the A operand is read once per 128 tokens
    {GemmSm90Kernel::split, 256, 32},        // wide matrices: half of the token traffic of 128x32
    {GemmSm90Kernel::split, 256, 64},        // wide matrices: half of the token traffic of 128x64
    {GemmSm90Kernel::split, 256, 96},        // M <= 96, wide; 96 accumulators, the most without setmaxnreg
}};

/// Weights are used as 64 * t, so int32 sums are exact while 64 * 128 * K < 2^31.
inline constexpr std::int64_t kMaxGemmSm90Inputs = 262143;

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

/// The persistent kernel with group scales, in clocks, fitted to the times of every tile on an H200
/// (bench_cuda_groups --tune: eight shapes, 16 to 4096 tokens).
constexpr double estimated_group_clocks(const GemmSm90Tile& tile, std::int64_t tokens,
                                        std::int64_t out_features, std::int64_t in_features,
                                        std::int32_t multiprocessors) {
  const std::int64_t tiles =
      (out_features + tile.rows - 1) / tile.rows * ((tokens + tile.tokens - 1) / tile.tokens);
  const std::int64_t waves = (tiles + multiprocessors - 1) / multiprocessors;
  const std::int64_t k_tiles = (in_features + 127) / 128;
  // Of 128 inputs: what a tile costs whatever its width, and each token's multiplication and additions.
  const double step = tile.rows == 64 ? 105 + 3.6 * tile.tokens : 130 + 5.0 * tile.tokens;
  const double start = 2900;  // the first bytes
  const double outputs = 1050;
  return start + static_cast<double>(waves) * (static_cast<double>(k_tiles) * step + outputs);
}

struct GemmSm90Choice {
  GemmSm90Tile tile;
  std::int32_t split;  // blocks per tile, 1 for the persistent kernel
  double clocks;       // the estimate
};

/// Clocks of 128 inputs of a tile on one multiprocessor.
constexpr double step_clocks(const GemmSm90Tile& tile) {
  const double tensor = tile.rows * tile.tokens / 32.0 * 1.16;  // 4096 multiply-adds a clock
  // 2 KiB of A registers per wgmma; two wgmma a warpgroup hide the unpacking less well.
  const bool two = tile.kernel == GemmSm90Kernel::persistent && tile.rows == 256;
  const double operand = tile.rows / 64.0 * 4 * (two ? 41 : 32.5);
  const double cache = (tile.rows * 32 + tile.tokens * 128) / 34.6;  // bytes a clock
  // A barrier wait and three copies by each of two threads, per 128 inputs or per 256.
  const double producer = tile.kernel == GemmSm90Kernel::persistent ? 376 : 314;
  return std::max({tensor, operand, cache, producer});
}

/// Whether every multiprocessor takes tile after tile. The split kernel is not considered then.
constexpr bool fills_the_device(std::int64_t tokens, std::int64_t out_features,
                                std::int32_t multiprocessors) {
  return tokens > 512 && (out_features + 127) / 128 * ((tokens + 127) / 128) > multiprocessors;
}

/// The same where every multiprocessor takes tile after tile: the card is at its limit of power then, where
/// the bytes of 128 rows cost clocks, and the A operands of 256 rows are not hidden behind few tokens. Fitted
/// to the same shapes with 1,024 to 16,384 tokens, each tile run for 50 ms before it was timed.
constexpr double many_tokens_step_clocks(const GemmSm90Tile& tile) {
  const double step = step_clocks(tile);
  return tile.rows == 256 ? std::max(step, 16 * (29 + 0.3 * tile.tokens))
                          : step * (tile.tokens > 128 ? 1.06 : 1.10);
}

/// Clocks of everything for one shape, beside launch and the first bytes, which all tiles pay alike.
constexpr double estimated_clocks(const GemmSm90Tile& tile, std::int32_t split, std::int64_t tokens,
                                  std::int64_t out_features, std::int64_t in_features,
                                  std::int32_t multiprocessors) {
  const std::int64_t tiles =
      (out_features + tile.rows - 1) / tile.rows * ((tokens + tile.tokens - 1) / tile.tokens);
  const std::int64_t k_tiles = (in_features + 127) / 128;
  if (tile.kernel == GemmSm90Kernel::persistent) {
    const std::int64_t waves = (tiles + multiprocessors - 1) / multiprocessors;
    const double step = fills_the_device(tokens, out_features, multiprocessors)
                            ? many_tokens_step_clocks(tile)
                            : step_clocks(tile);
    return static_cast<double>(waves * k_tiles) * step;  // the outputs hide behind the next tile
  }
  const std::int64_t slots = clusters_that_fit(split, multiprocessors);
  const std::int64_t waves = (tiles + slots - 1) / slots;
  const std::int64_t steps = ((k_tiles + 1) / 2 + split - 1) / split;
  const double exchange = tile.rows * tile.tokens / 4.0;  // st.async, sums, stores
  const double start = 3200;  // nothing of the next block is fetched while this one ends
  const double first = 400;   // of a block, beyond the persistent kernel's
  return static_cast<double>(waves) *
             (2 * static_cast<double>(steps) * step_clocks(tile) + exchange + start) -
         start + first;
}

constexpr GemmSm90Choice choose_gemm_sm90(std::int64_t tokens, std::int64_t out_features,
                                          std::int64_t in_features, std::int32_t multiprocessors) {
  GemmSm90Choice best{kGemmSm90Tiles[0], 1, std::numeric_limits<double>::infinity()};
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    const bool splits = tile.kernel == GemmSm90Kernel::split;
    if (splits && fills_the_device(tokens, out_features, multiprocessors)) {
      continue;
    }
    for (const std::int32_t split : kGemmSm90Splits) {
      // A block without a step would send zeros and wait: not worth a launch.
      if (split > largest_split(tile) || (split > 1 && (in_features + 255) / 256 < split)) {
        break;
      }
      const double clocks = estimated_clocks(tile, split, tokens, out_features, in_features, multiprocessors);
      if (clocks < best.clocks) {
        best = {tile, split, clocks};
      }
    }
  }
  return best;
}

}  // namespace trit::cuda

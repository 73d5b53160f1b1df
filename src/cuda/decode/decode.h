// SPDX-License-Identifier: MIT
//
// Between decode's plan (plan.cu) and its kernel (kernel.cu).
#pragma once

#include "cuda/common/groups.h"
#include "cuda/common/product_arguments.cuh"
#include "cuda/plan.h"

namespace trit::cuda {

inline constexpr int kMaxDecodeTokens = 16;
inline constexpr int kMaxDecodeWarps = 16;  // of a block
inline constexpr int kDecodeDepth = 4;      // tiles in flight per warp: 4 or 8 KB
/// Bytes after a token's x: rows start in different banks, so that ldmatrix has no conflicts.
inline constexpr int kDecodeRowPadding = 16;
/// Ints after a token's sums: the 4 tokens x 8 rows of a store are in 32 banks.
inline constexpr int kDecodeSumPadding = 4;

/// How one launch divides its work: the plan, and what follows from it, the shape and the device.
struct DecodeLaunch {
  DecodePlan plan;
  int blocks;       // of P * strips * 16 rows each
  int chunk_tiles;  // tiles along k whose x fits in shared memory at a time
  int x_stride;     // bytes from token to token in shared memory
  int sum_stride;   // ints, likewise
  unsigned shared_bytes;
};
void launch_decode(const DecodeLaunch& how, const ProductArguments& arguments, bool programmatic,
                   Stream stream);

// groups.cu: with group scales, k shared by Q warps.
/// Words after a pair of tokens' sums of a segment: the 4 pairs x 8 rows of a store are in 32 banks.
inline constexpr int kSegmentPadding = 8;
/// Bytes of shared memory for sums: of the segments of each tile along k, and of the rows.
struct GroupSumBytes {
  int tile, fixed;
};
inline GroupSumBytes group_sum_bytes(const DecodePlan& plan, int tokens, const Groups& groups) {
  const int rows = plan.row_warps * plan.strips * kStripRows;
  const int pairs = ceil_div(tokens, 2);
  return {kTileInputs / groups.segment * pairs * (rows + kSegmentPadding) * 4,
          (groups.per_group > 1 ? 4 : 2) * pairs * rows * 4};
}
/// Groups that a chunk of k touches, at most.
inline int groups_in_chunk(int chunk_tiles, const Groups& groups) {
  return std::min(groups.count, ceil_div(chunk_tiles * (kTileInputs / groups.segment), groups.per_group) + 1);
}
void launch_decode_groups(const DecodeLaunch& how, const ProductArguments& arguments, const Groups& groups,
                          bool programmatic, Stream stream);

// whole_groups.cu: with group scales, all of k by one warp. A plan has one strip a warp, P warps along the rows, and Q that
// share the tokens.
inline constexpr int kStageTiles = 4;  // along k
inline constexpr int kStages = 4;      // of the ring
/// Whether a group is a segment, one or two of which are a tile.
inline bool staged_scales(const Groups& groups) { return groups.per_group == 1 && groups.segment >= 64; }
/// Bytes of shared memory of a stage, in this order.
struct StageBytes {
  int x;  // [tokens][tiles, and 16 bytes]
  int weights;
  int scales;        // [p][group][16 rows]
  int token_scales;  // [group][16 tokens]
  int all() const { return x + weights + scales + token_scales; }
};
inline constexpr int kStageXStride = kStageTiles * kTileInputs + kDecodeRowPadding;
inline StageBytes stage_bytes(const DecodePlan& plan, int tokens, const Groups& groups, bool half) {
  // Where groups are not segments of one size, scales do not come through the ring.
  const int of_stage = staged_scales(groups) ? kStageTiles * (kTileInputs / groups.segment) : 0;
  return {.x = round_up(tokens * kStageXStride, 128),
          .weights = plan.row_warps * kStageTiles * kStripBytes,
          .scales = plan.row_warps * of_stage * kStripRows * (half ? 2 : 4),
          .token_scales = of_stage * kMaxDecodeTokens * 4};
}
void launch_decode_whole_groups(const DecodePlan& plan, const ProductArguments& arguments,
                                const Groups& groups, bool programmatic, Stream stream);

}  // namespace trit::cuda

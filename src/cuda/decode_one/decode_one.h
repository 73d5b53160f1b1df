// SPDX-License-Identifier: MIT
//
// Between decode_one's plan (plan.cu) and its kernels (direct.cu, ring.cu; with group scales direct_groups.cu,
// ring_groups.cu).
#pragma once

#include "cuda/common/groups.h"
#include "cuda/common/product_arguments.cuh"

namespace trit::cuda::one {

/// Of shared memory, from its beginning: zeros, which ldmatrix reads for columns without inputs.
inline constexpr int kZeroBytes = 128;

/// Tiles along k of a warp: a sum of (t + 2) * 64 * q, 192 * 128 at most, must fit in int32.
inline constexpr int kMaxTilesPerPart = 682;
static_assert(std::int64_t{kMaxTilesPerPart} * kTileInputs * 192 * 128 < (std::int64_t{1} << 31));

/// How one launch divides its work. Everything follows from the shape and the device.
struct Launch {
  int strips;     // of 16 rows per warp: 1 or 2
  int tiles;      // of a warp, all in registers; 0: through a ring in shared memory
  int row_warps;  // P: 1 without a ring
  int k_warps;    // Q
  int blocks;     // of P * strips * 16 rows each
  unsigned shared_bytes;
};

// direct.cu: everything that a warp multiplies is in registers.
inline constexpr int kMaxDirectThreads = 1024;
inline constexpr int kDirectHeaderBytes = 2 * kZeroBytes;
void launch_direct(const Launch& how, const ProductArguments& arguments, bool programmatic, Stream stream);

// direct_groups.cu: likewise with group scales.
void launch_direct_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                          bool programmatic, Stream stream);
/// Groups that the end of a kernel with group scales loads at a time; it may read up to a whole batch.
inline constexpr int kGroupBatch = 8;
/// Words of 32 rows' sums of four segments.
inline constexpr int kSumWords = 128;
/// Bytes of the sums of so many segments of 32 rows.
constexpr int segment_sum_bytes(int segments) { return round_up(segments, kGroupBatch) / 4 * kSumWords * 4; }
inline int direct_groups_shared_bytes(int k_warps, int tiles, const Groups& groups) {
  // Sums and scales, both as floats.
  return kZeroBytes + 2 * segment_sum_bytes(k_warps * tiles * (kTileInputs / groups.segment)) +
         k_warps * tiles * kTileInputs;
}

// ring.cu, ring_groups.cu: for any shape.
inline constexpr int kMaxRingWarps = 16;
inline constexpr int kRingStrips = 2;
inline constexpr int kRingDepth = 4;  // tiles
inline constexpr int kRingWarpRows = kRingStrips * kStripRows;
inline constexpr unsigned kRingShareBytes = kRingStrips * kStripBytes;  // of a tile, a warp
/// With group scales: whether float16 scales are arranged by rows (ring_groups.cu).
inline bool arranges_scales(const Launch& how, const Groups& groups) {
  return groups.half && how.row_warps * how.k_warps > kMaxRingWarps / 2;
}
/// Bytes of shared memory after the zeros, in this order; the sums of the block's rows, or of their segments.
struct RingBytes {
  int sums;
  int scales;        // with group scales
  int token_scales;  // likewise, where tokens have any
  int scale_copy;    // likewise, where they are arranged: as they came
  int x;             // of a warp
  int ring;          // of a warp
  unsigned all(const Launch& how) const {
    return static_cast<unsigned>(kZeroBytes + sums + scales + token_scales + scale_copy +
                                 how.row_warps * how.k_warps * (x + ring));
  }
};
inline RingBytes ring_bytes(const Launch& how, int k_tiles, const Groups& groups) {
  const int rows = how.row_warps * kRingWarpRows;
  RingBytes bytes{.sums = round_up(rows * 4, kTileInputs),
                  .scales = 0,
                  .token_scales = 0,
                  .scale_copy = 0,
                  .x = ceil_div(k_tiles, how.k_warps) * kTileInputs,
                  .ring = kRingDepth * static_cast<int>(kRingShareBytes)};
  if (groups.count > 0) {
    const int scales = round_up(groups.count, kGroupBatch);
    bytes.sums = how.row_warps * segment_sum_bytes(groups.segments);
    bytes.x = round_up(ceil_div(k_tiles, how.k_warps), 4) * kTileInputs;  // whole fours of segments are read
    bytes.scales = scales * rows * (groups.half ? 2 : 4);
    bytes.scale_copy = arranges_scales(how, groups) ? bytes.scales : 0;
    bytes.token_scales = round_up(scales * 4, kTileInputs);  // x starts in the same banks in every warp
  }
  return bytes;
}
void launch_ring(const Launch& how, const ProductArguments& arguments, bool programmatic, Stream stream);
void launch_ring_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                        bool programmatic, Stream stream);

}  // namespace trit::cuda::one

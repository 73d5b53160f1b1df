// SPDX-License-Identifier: MIT
//
// Between decode_one's plan (plan.cu) and its two kernels (direct.cu, ring.cu).
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
void launch_direct(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                   bool programmatic, Stream stream);

// ring.cu: for any shape.
inline constexpr int kMaxRingWarps = 16;
inline constexpr int kRingStrips = 2;
inline constexpr int kRingDepth = 4;  // tiles
inline constexpr unsigned kRingWarpRows = kRingStrips * kStripRows;
inline constexpr unsigned kRingShareBytes = kRingStrips * kStripBytes;  // of a tile, a warp
/// Bytes of shared memory where x and the weights' rings start, and of a warp's x.
inline int ring_x_begin(const Launch& how) {
  return kZeroBytes + round_up<int>(how.row_warps * kRingWarpRows * 4, kTileInputs);
}
inline int ring_x_bytes(const Launch& how, int k_tiles) {
  return ceil_div(k_tiles, how.k_warps) * kTileInputs;
}
inline int ring_begin(const Launch& how, int k_tiles) {
  return ring_x_begin(how) + how.row_warps * how.k_warps * ring_x_bytes(how, k_tiles);
}
void launch_ring(const Launch& how, const ProductArguments& arguments, bool programmatic, Stream stream);

// groups.cu: the ring with group scales. Bytes of shared memory after the zeros, in this order.
struct GroupBytes {
  int sums;    // of the segments of two rounds
  int x;       // of a warp: q, and the sums of its segments
  int rings;   // of all warps
  int scales;  // of 32 rows
  int all(const Launch& how) const {
    return kZeroBytes + sums + how.row_warps * how.k_warps * x + rings + how.row_warps * scales;
  }
};
inline GroupBytes group_bytes(const Launch& how, int k_tiles, const Groups& groups) {
  const int segments = kTileInputs / groups.segment;
  const int part = ceil_div(k_tiles, how.k_warps);
  return {.sums = 2 * how.k_warps * segments * how.row_warps * static_cast<int>(kRingWarpRows) * 4,
          .x = round_up(part * (kTileInputs + 16), kTileInputs),
          .rings = how.row_warps * how.k_warps * kRingDepth * static_cast<int>(kRingShareBytes),
          .scales = groups.count * static_cast<int>(kRingWarpRows) * 4};
}
void launch_ring_groups(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                        bool programmatic, Stream stream);

}  // namespace trit::cuda::one

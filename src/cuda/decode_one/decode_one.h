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
/// Bytes of shared memory after the zeros, in this order; the sums of the block's rows, or of their segments.
struct RingBytes {
  int sums;
  int scales;  // with group scales
  int x;       // of a warp, with the sums of its segments
  int ring;    // of a warp
  unsigned all(const Launch& how) const {
    return static_cast<unsigned>(kZeroBytes + sums + scales + how.row_warps * how.k_warps * (x + ring));
  }
};
inline RingBytes ring_bytes(const Launch& how, int k_tiles, const Groups& groups) {
  const int rows = how.row_warps * static_cast<int>(kRingWarpRows);
  const int part = ceil_div(k_tiles, how.k_warps);
  RingBytes bytes{.sums = round_up(rows * 4, kTileInputs),
                  .scales = 0,
                  .x = part * kTileInputs,
                  .ring = kRingDepth * static_cast<int>(kRingShareBytes)};
  if (groups.count > 0) {
    bytes.sums = groups.segments * rows * 4;
    bytes.scales = groups.count * rows * (groups.half ? 2 : 4);
    // x of all warps starts in the same banks, and is read 128 bytes at a time.
    bytes.x = round_up(bytes.x + part * (kTileInputs / groups.segment) * 4, kTileInputs);
  }
  return bytes;
}
void launch_ring(const Launch& how, const ProductArguments& arguments, const Groups& groups,
                 bool programmatic, Stream stream);

// group_sum.cuh: segments beyond a row that may be read, 32 words each.
inline constexpr unsigned kGroupOverread = 16;
static_assert(kGroupOverread * 32 * 4 <= kRingDepth * kRingShareBytes, "in the ring, which follows");

}  // namespace trit::cuda::one

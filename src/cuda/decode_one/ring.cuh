// SPDX-License-Identifier: MIT
//
// What ring.cu and ring_groups.cu share: a warp's ring of tiles.
#pragma once

#include "cuda/decode_one/decode_one.h"
#include "cuda/decode_one/multiply.cuh"

namespace trit::cuda::one {

inline constexpr int kStrips = kRingStrips;
inline constexpr int kDepth = kRingDepth;
inline constexpr unsigned kWarpRows = kRingWarpRows;
inline constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
inline constexpr unsigned kShareBytes = kRingShareBytes;
inline constexpr unsigned kUnitBytes = 16;
inline constexpr unsigned kUnitsPerTile = kTileInputs / kUnitBytes;
inline constexpr unsigned kUnitsInFlight = 2;  // of x, a lane: 8 tiles

/// A lane's bytes of a tile to its place in the ring.
__device__ __forceinline__ void copy_share(std::uint32_t slot, const std::uint8_t* from) {
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
    ptx::cp_async_16(slot + s * kStripBytes, from + s * kStripBytes);
  }
}

/// And from there, once it has arrived.
__device__ __forceinline__ void load_share(uint4 (&weights)[kStrips], std::uint32_t slot) {
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    weights[i] = ptx::shared_load(slot + i * kStripBytes);
  }
}

}  // namespace trit::cuda::one

// SPDX-License-Identifier: MIT
//
// What the threads of whole_groups.cu copy of each stage of k.
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/decode/decode.h"

namespace trit::cuda {

/// Computed by the host. Offsets and sizes are bytes.
struct WholeShape {
  unsigned strips;             // of 16 rows, in the whole matrix
  unsigned batches;            // of up to 16 tokens
  unsigned stages;             // along k
  unsigned whole_stages;       // those without tiles or groups that do not exist
  unsigned stage_bytes;        // of shared memory
  unsigned weight_begin;       // in a stage
  unsigned scale_begin;        // likewise
  unsigned token_scale_begin;  // likewise
  unsigned row_block_bytes;    // of the weights of 64 rows
  unsigned scale_block_bytes;  // likewise their scales
  unsigned segment_mask;       // bit w: word w of a tile ends a segment
  Groups groups;
};

inline constexpr unsigned kStripsPerBlock = kTileRows / kStripRows;  // of rows: 64

/// What a thread copies of each stage, one stage after another: pointers only move on.
template <int kSegments, bool kHalf, bool kTokenGroups>
struct StageCopy {
  static constexpr unsigned kGroups = kStageTiles * kSegments;                // of a stage
  static constexpr unsigned kStripScaleBytes = kStripRows * (kHalf ? 2 : 4);  // of a group
  static constexpr unsigned kScaleUnits = kStripScaleBytes / 16;              // of 16 bytes, likewise
  static_assert(kGroups * kScaleUnits <= 32, "a unit a lane");

  const std::uint8_t* weights;
  unsigned tiles_left;
  unsigned tile_mask;  // 1 where two warps share a strip: every other tile
  std::uint32_t weights_to;
  const std::uint8_t* scales;
  unsigned groups_left;  // from this lane's on; 0 where it copies none
  std::uint32_t scales_to;
  const std::int8_t* x;
  unsigned x_left;  // bytes of a row
  std::uint32_t x_to;
  unsigned first, step, tokens;  // this warp's tokens
  unsigned group = 0;            // of the token scales

  __device__ __forceinline__ StageCopy(const ProductArguments& a, const WholeShape& shape, unsigned strip,
                                       const std::int8_t* first_x, unsigned of_tokens, unsigned lane) {
    const unsigned p = threadIdx.y;
    const unsigned q = threadIdx.z;
    const std::uint64_t block = strip / kStripsPerBlock;
    const unsigned in_block = strip % kStripsPerBlock;
    tile_mask = blockDim.z - 1;
    weights = a.weights + block * shape.row_block_bytes + q * kTileBytes + in_block * kStripBytes + lane * 16;
    tiles_left = static_cast<unsigned>(a.tiles_along_k) - min(q, static_cast<unsigned>(a.tiles_along_k));
    weights_to = shape.weight_begin + (p * kStageTiles + q) * kStripBytes + lane * 16;
    first = q * blockDim.y + p;
    step = blockDim.y * blockDim.z;
    tokens = of_tokens;
    x = first_x + first * static_cast<unsigned>(a.row_bytes) + lane * 16;
    x_left = static_cast<unsigned>(a.row_bytes) - min(lane * 16, static_cast<unsigned>(a.row_bytes));
    x_to = first * kStageXStride + lane * 16;
    if constexpr (kSegments > 0) {
      const unsigned lane_group = lane / kScaleUnits;
      const unsigned unit = lane % kScaleUnits;
      scales = static_cast<const std::uint8_t*>(shape.groups.scale) + block * shape.scale_block_bytes +
               ((lane_group * kStripsPerBlock + in_block) * kScaleUnits + unit) * 16;
      const auto count = static_cast<unsigned>(shape.groups.count);
      groups_left = q == 0 && lane_group < kGroups ? count - min(lane_group, count) : 0U;
      scales_to = shape.scale_begin + (p * kGroups * kScaleUnits + lane) * 16;
    }
  }

  __device__ __forceinline__ void copy_weights(std::uint32_t stage) {
#pragma unroll
    for (unsigned i = 0; i < kStageTiles; ++i) {
      if (i < tiles_left && (i & tile_mask) == 0) {
        ptx::cp_async_16(stage + weights_to + i * kStripBytes, weights + i * kTileBytes);
      }
    }
    weights += kStageTiles * kTileBytes;
    tiles_left -= min(tiles_left, unsigned{kStageTiles});
    if constexpr (kSegments > 0) {
      if (groups_left > 0) {
        ptx::cp_async_16(stage + scales_to, scales);
      }
      scales += kGroups * kStripsPerBlock * kStripScaleBytes;
      groups_left -= min(groups_left, kGroups);
    }
  }
  __device__ __forceinline__ void copy_x(std::uint32_t stage, const ProductArguments& a,
                                         const WholeShape& shape, unsigned first_token) {
    if (x_left > 0) {
      const std::int8_t* from = x;
      std::uint32_t to = stage + x_to;
#pragma unroll 1
      for (unsigned token = first; token < tokens; token += step) {
        ptx::cp_async_16(to, from);
        from += step * static_cast<unsigned>(a.row_bytes);
        to += step * kStageXStride;
      }
    }
    x += kStageTiles * kTileInputs;
    x_left -= min(x_left, unsigned{kStageTiles * kTileInputs});
    if constexpr (kTokenGroups && kSegments > 0) {
      const auto count = static_cast<unsigned>(shape.groups.count);
#pragma unroll 1
      for (unsigned i = first * 32 + threadIdx.x; i < kGroups * kMaxDecodeTokens; i += step * 32) {
        const unsigned of_row = group + i / kMaxDecodeTokens;
        const unsigned token = i % kMaxDecodeTokens;
        if (of_row < count && token < tokens) {
          ptx::cp_async_4(stage + shape.token_scale_begin + i * 4,
                          a.out.token_scale + std::uint64_t{first_token + token} * count + of_row);
        }
      }
      group += kGroups;
    }
  }
};

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// What the host hands to the Hopper GEMM kernels, beside the tensor maps.
#pragma once

#include <cstdint>

#include "cuda/common/groups.h"
#include "trit/format.h"

namespace trit::cuda {

/// n / divisor without a division: 20 clocks instead of about 100, once per tile. n < 2^31, divisor >= 1.
struct FastDivider {
  std::uint32_t divisor = 1;
  std::uint32_t multiplier = 1U << 31U;  // ceil(2^shift / divisor)
  std::uint32_t shift = 31;              // 31 + ceil(log2(divisor))

  static constexpr FastDivider of(std::uint32_t divisor) {
    std::uint32_t shift = 31;
    while ((std::uint64_t{1} << (shift - 31U)) < divisor) {
      ++shift;
    }
    const std::uint64_t multiplier = ((std::uint64_t{1} << shift) + divisor - 1) / divisor;
    return {divisor, static_cast<std::uint32_t>(multiplier), shift};
  }
};

/// The order in which blocks take tiles: groups of token tiles, and in a group token tiles fastest, so that
/// the 132 tiles in flight share both weights and tokens in the second-level cache.
struct TileOrder {
  std::int32_t tiles = 0;
  std::int32_t token_tiles = 0;
  FastDivider per_group;        // tiles of a whole group: row tiles * kTokenTileGroup
  FastDivider group;            // kTokenTileGroup
  FastDivider last_group;       // token tiles of the last group
  std::int32_t last_begin = 0;  // first token tile of the last group
};
inline constexpr std::int32_t kTokenTileGroup = 8;

struct GemmSm90Parameters {
  const std::uint8_t* weights = nullptr;  // [row_blocks, k_tiles, tiles of the operand]
  const float* token_scales = nullptr;    // s [tokens], or null for 1
  const float* weight_scales = nullptr;   // beta [1] or [out_features], or null for 1
  const float* bias = nullptr;            // [out_features] or null
  void* y = nullptr;                      // [tokens, y_stride] of y_type
  std::int64_t y_stride = 0;              // elements
  std::int32_t tokens = 0;                // M
  std::int32_t out_features = 0;          // N
  std::int32_t row_blocks = 0;            // ceil(N / 64)
  std::int32_t k_tiles = 0;               // ceil(K / inputs of a tile)
  std::int32_t weight_scale_stride = 0;   // 0: one beta, 1: one per output row
  DataType y_type = DataType::float32;
  bool staged = false;                        // y through shared memory and the copy engine
  TileOrder order;                            // persistent kernel
  Groups groups;                              // with group scales; weight_scales is null then
  const float* group_token_scales = nullptr;  // [tokens, groups] where groups.token_groups
  // The tokens once more, for sums that overflow (group_overflow.cuh).
  const std::int8_t* q = nullptr;  // [tokens, q_stride]
  std::int64_t q_stride = 0;
  std::int32_t in_features = 0;  // K
  // Split kernel: blocks of a cluster share K.
  std::int32_t split = 1;             // blocks in a cluster
  std::int32_t stages = 0;            // of the ring
  std::int32_t steps_per_block = 0;   // of the ring
  std::int32_t steps_over = 0;        // the first blocks take one more step
  std::int32_t groups_per_block = 0;  // token octets that a block owns at most: ceil(octets / split)
};

}  // namespace trit::cuda

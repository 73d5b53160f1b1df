// SPDX-License-Identifier: MIT
//
// The tile of the Hopper GEMM that a product of gradients takes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cuda/common/checks.h"
#include "cuda/gemm_sm90/launch.cuh"

namespace trit::cuda {

/// The one whose waves take the fewest multiply-adds, times penalty(tile); the first among equals.
template <typename Penalty>
const GemmSm90Instance& cheapest_tile(std::span<const GemmSm90Instance> instances, std::int64_t rows,
                                      std::int64_t tokens, std::int32_t multiprocessors,
                                      const Penalty& penalty) {
  return *std::ranges::min_element(instances, {}, [&](const GemmSm90Instance& instance) {
    const GemmSm90Tile& tile = instance.tile;
    const std::int64_t tiles =
        ceil_div<std::int64_t>(rows, tile.rows) * ceil_div<std::int64_t>(tokens, tile.tokens);
    return penalty(tile) *
           static_cast<double>(ceil_div<std::int64_t>(tiles, multiprocessors) * tile.rows * tile.tokens);
  });
}

}  // namespace trit::cuda

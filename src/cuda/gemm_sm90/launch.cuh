// SPDX-License-Identifier: MIT
//
// Between the host side of the Hopper GEMM and the files that hold its instantiations.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/common/tensor_map.cuh"
#include "cuda/gemm_sm90/parameters.h"
#include "trit/cuda.h"

namespace trit::cuda {

struct GemmSm90Launch {
  const TensorMap& x_map;
  const TensorMap& y_map;  // persistent kernel
  GemmSm90Parameters parameters;
  std::int32_t blocks = 0;       // persistent kernel
  std::int32_t row_tiles = 0;    // split kernel
  std::int32_t token_tiles = 0;  // split kernel
  bool programmatic = false;
  Stream stream;
};

inline TileOrder tile_order(std::int32_t row_tiles, std::int32_t token_tiles) {
  TileOrder order;
  order.tiles = row_tiles * token_tiles;
  order.per_group = FastDivider::of(static_cast<std::uint32_t>(row_tiles * kTokenTileGroup));
  order.group = FastDivider::of(kTokenTileGroup);
  order.last_begin = (token_tiles - 1) / kTokenTileGroup * kTokenTileGroup;
  order.last_group = FastDivider::of(static_cast<std::uint32_t>(token_tiles - order.last_begin));
  return order;
}

/// A compiled tile.
struct GemmSm90Instance {
  std::int32_t rows;
  std::int32_t tokens;
  void (*launch)(const GemmSm90Launch&);
};

std::span<const GemmSm90Instance> gemm_sm90_persistent_256();
std::span<const GemmSm90Instance> gemm_sm90_persistent_128();
std::span<const GemmSm90Instance> gemm_sm90_split();
/// Of 16-bit float tokens: bfloat16 or float16.
std::span<const GemmSm90Instance> gemm_sm90_float(DataType type);

}  // namespace trit::cuda

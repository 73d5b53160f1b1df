// SPDX-License-Identifier: MIT
//
// The host side of the Hopper GEMM: tensor maps, the order of tiles, the launch.
#include <algorithm>
#include <string>

#include "cuda/common/checks.h"
#include "cuda/gemm_sm90/launch.cuh"

namespace trit::cuda {
namespace {

TileOrder tile_order(std::int32_t row_tiles, std::int32_t token_tiles) {
  TileOrder order;
  order.tiles = row_tiles * token_tiles;
  order.per_group = FastDivider::of(static_cast<std::uint32_t>(row_tiles * kTokenTileGroup));
  order.group = FastDivider::of(kTokenTileGroup);
  order.last_begin = (token_tiles - 1) / kTokenTileGroup * kTokenTileGroup;
  order.last_group = FastDivider::of(static_cast<std::uint32_t>(token_tiles - order.last_begin));
  return order;
}

}  // namespace

void launch_gemm_sm90(const char* function, const GemmSm90Instance& instance, std::int32_t split,
                      const GemmSm90Tokens& x, GemmSm90Parameters p, std::int32_t multiprocessors,
                      bool programmatic, Stream stream) {
  const GemmSm90Tile& tile = instance.tile;
  const std::int64_t row_tiles = ceil_div<std::int64_t>(p.out_features, tile.rows);
  const std::int64_t token_tiles = ceil_div<std::int64_t>(p.tokens, tile.tokens);
  if (row_tiles * ceil_div<std::int64_t>(token_tiles, kTokenTileGroup) * kTokenTileGroup > INT32_MAX ||
      (tile.kernel == GemmSm90Kernel::split && token_tiles > 65535)) {
    throw Error("cuda::" + std::string(function) + ": " + std::to_string(p.tokens) + " tokens x " +
                std::to_string(p.out_features) + " outputs are too many tiles of " +
                std::to_string(tile.tokens) + " x " + std::to_string(tile.rows));
  }
  constexpr std::int32_t kTileRowBytes = 128;  // of a token in a tile of k
  p.y_stride = p.out_features;
  p.row_blocks = ceil_div(p.out_features, 64);
  p.k_tiles =
      static_cast<std::int32_t>(ceil_div<std::int64_t>(x.in_features, kTileRowBytes / x.element_bytes));
  p.staged = tile.kernel == GemmSm90Kernel::persistent && p.y_type != DataType::float32 &&
             p.out_features % 8 == 0 && is_aligned(p.y, 16);
  p.order = tile_order(static_cast<std::int32_t>(row_tiles), static_cast<std::int32_t>(token_tiles));
  p.split = split;
  const TensorMap x_map = make_tensor_map({.data = x.data,
                                           .element_bytes = x.element_bytes,
                                           .row_elements = x.in_features,
                                           .rows = p.tokens,
                                           .stride_bytes = x.stride_bytes,
                                           .box_rows = tile.tokens},
                                          function);
  TensorMap y_map{};
  if (p.staged) {
    y_map = make_tensor_map({.data = p.y,
                             .element_bytes = 2,
                             .row_elements = p.out_features,
                             .rows = p.tokens,
                             .stride_bytes = 2 * p.y_stride,
                             .box_rows = tile.tokens},
                            function);
  }
  instance.launch({.x_map = x_map,
                   .y_map = y_map,
                   .parameters = p,
                   .blocks = std::min(p.order.tiles, multiprocessors),
                   .row_tiles = static_cast<std::int32_t>(row_tiles),
                   .token_tiles = static_cast<std::int32_t>(token_tiles),
                   .programmatic = programmatic,
                   .stream = stream});
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// The host side of the Hopper GEMM: checks, tensor maps, the order of tiles, the launch.
#include <algorithm>
#include <string>

#include "cuda/common/launch.cuh"
#include "cuda/gemm_sm90/gemm.h"
#include "cuda/gemm_sm90/launch.cuh"

namespace trit::cuda {
namespace {

std::string shape_of(const GemmSm90& args) {
  return "cuda: gemm_sm90 of M = " + std::to_string(args.tokens) +
         ", N = " + std::to_string(args.out_features) + ", K = " + std::to_string(args.in_features);
}

bool aligned(const void* pointer, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

void check_args(const GemmSm90& args) {
  // Tile counts and coordinates are int32; a matrix near that limit has no room in any GPU.
  constexpr std::int64_t kMaxExtent = std::int64_t{1} << 30;
  if (args.in_features > kMaxGemmSm90Inputs) {
    throw Error(shape_of(args) +
                ": the kernel's int32 sums are exact up to K = " + std::to_string(kMaxGemmSm90Inputs));
  }
  if (args.tokens < 0 || args.tokens > kMaxExtent || args.out_features < 1 ||
      args.out_features > kMaxExtent || args.in_features < 1) {
    throw Error(shape_of(args) + ": M must be 0 or more, N and K 1 or more, M and N at most 2^30");
  }
  if (args.q_stride < args.in_features || args.y_stride < args.out_features) {
    throw Error(shape_of(args) + ": rows of q are " + std::to_string(args.q_stride) +
                " bytes and rows of y " + std::to_string(args.y_stride) + " elements apart, less than a row");
  }
  if (!aligned(args.weights, 16)) {
    throw Error(shape_of(args) + ": the weights must start on a multiple of 16 bytes");
  }
  if (!aligned(args.y, args.y_type == DataType::float32 ? 4 : 2)) {
    throw Error(shape_of(args) + ": y is not aligned to its elements");
  }
}

const GemmSm90Instance& instance_of(const GemmSm90Tile& tile) {
  const auto find = [&](std::span<const GemmSm90Instance> instances) -> const GemmSm90Instance* {
    for (const GemmSm90Instance& instance : instances) {
      if (instance.rows == tile.rows && instance.tokens == tile.tokens) {
        return &instance;
      }
    }
    return nullptr;
  };
  const GemmSm90Instance* found = nullptr;
  if (tile.kernel == GemmSm90Kernel::split) {
    found = find(gemm_sm90_split());
  } else {
    found = find(tile.rows == 256 ? gemm_sm90_persistent_256() : gemm_sm90_persistent_128());
  }
  if (found == nullptr) {
    throw Error("cuda: gemm_sm90 has no tile of " + std::to_string(tile.rows) + " rows and " +
                std::to_string(tile.tokens) + " tokens");
  }
  return *found;
}

}  // namespace

void gemm_sm90(const GemmSm90& args, const GemmSm90Tile& tile, std::int32_t split,
               std::int32_t multiprocessors, Stream stream) {
  check_args(args);
  const GemmSm90Instance& instance = instance_of(tile);
  // A block without a step would have no accumulators to send.
  const std::int32_t most =
      std::min(largest_split(tile), static_cast<std::int32_t>((args.in_features + 255) / 256));
  if (split < 1 || split > most || multiprocessors < 1) {
    throw Error(shape_of(args) + ": " + std::to_string(split) +
                " blocks a tile, where this tile and K take 1 to " + std::to_string(most));
  }
  if (args.tokens == 0) {
    return;
  }
  const std::int64_t row_tiles = ceil_div<std::int64_t>(args.out_features, tile.rows);
  const std::int64_t token_tiles = ceil_div<std::int64_t>(args.tokens, tile.tokens);
  if (row_tiles * ceil_div<std::int64_t>(token_tiles, kTokenTileGroup) * kTokenTileGroup > INT32_MAX ||
      (tile.kernel == GemmSm90Kernel::split && token_tiles > 65535)) {
    throw Error(shape_of(args) + ": too many tiles of " + std::to_string(tile.rows) + " x " +
                std::to_string(tile.tokens));
  }

  GemmSm90Parameters p;
  p.weights = args.weights;
  p.token_scales = args.token_scales;
  p.row_scales = args.row_scales;
  p.bias = args.bias;
  p.y = args.y;
  p.y_stride = args.y_stride;
  p.tokens = static_cast<std::int32_t>(args.tokens);
  p.out_features = static_cast<std::int32_t>(args.out_features);
  p.row_blocks = ceil_div(p.out_features, 64);
  p.k_tiles = ceil_div(static_cast<std::int32_t>(args.in_features), 128);
  p.row_scale_stride = args.scale_per_row ? 1 : 0;
  p.y_type = args.y_type;
  p.staged = tile.kernel == GemmSm90Kernel::persistent && args.y_type != DataType::float32 &&
             aligned(args.y, 16) && args.y_stride % 8 == 0 && args.out_features % 8 == 0;
  p.order = tile_order(static_cast<std::int32_t>(row_tiles), static_cast<std::int32_t>(token_tiles));
  p.split = split;

  const TensorMap x_map = make_tensor_map({.data = args.q,
                                           .element_bytes = 1,
                                           .row_elements = args.in_features,
                                           .rows = args.tokens,
                                           .stride_bytes = args.q_stride,
                                           .box_rows = tile.tokens},
                                          "gemm_sm90: q");
  TensorMap y_map{};
  if (p.staged) {
    y_map = make_tensor_map({.data = args.y,
                             .element_bytes = 2,
                             .row_elements = args.out_features,
                             .rows = args.tokens,
                             .stride_bytes = 2 * args.y_stride,
                             .box_rows = tile.tokens},
                            "gemm_sm90: y");
  }
  instance.launch({.x_map = x_map,
                   .y_map = y_map,
                   .parameters = p,
                   .blocks = std::min(p.order.tiles, multiprocessors),
                   .row_tiles = static_cast<std::int32_t>(row_tiles),
                   .token_tiles = static_cast<std::int32_t>(token_tiles),
                   .programmatic = args.programmatic,
                   .stream = stream});
}

void gemm_sm90(const GemmSm90& args, std::int32_t multiprocessors, Stream stream) {
  check_args(args);
  const GemmSm90Choice choice =
      choose_gemm_sm90(args.tokens, args.out_features, args.in_features, multiprocessors);
  gemm_sm90(args, choice.tile, choice.split, multiprocessors, stream);
}

}  // namespace trit::cuda

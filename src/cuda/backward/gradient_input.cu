// SPDX-License-Identifier: MIT
//
// The host side of dX = beta * dY · t: the Hopper GEMM with dY as tokens and transposed weights as rows.
#include <algorithm>
#include <limits>
#include <string>

#include "cuda/common/launch.cuh"
#include "cuda/gemm_sm90/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 30;  // tile counts and coordinates are int32
constexpr std::int64_t kOutputsPerTile = 64;                // that a tile of transposed weights sums over

bool aligned(const void* pointer, std::uintptr_t bytes) {
  return pointer != nullptr && reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// The tile whose waves take the fewest multiply-adds. Tiles of 128 rows read their tokens from shared memory
// for half of the work: 4 % slower on an H200 at 16,384 tokens and 4096 x 4096, 1.11 for 128 x 128.
const GemmSm90Instance& tile_for(const GradientInput& args, std::int32_t multiprocessors) {
  const GemmSm90Instance* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const GemmSm90Instance& one : gemm_sm90_float(args.type)) {
    const std::int64_t tiles =
        ceil_div<std::int64_t>(args.in_features, one.rows) * ceil_div<std::int64_t>(args.tokens, one.tokens);
    const double penalty = one.rows == 256 ? 1.0 : one.tokens == 192 ? 1.04 : 1.08;
    const double cost =
        penalty * static_cast<double>(ceil_div<std::int64_t>(tiles, multiprocessors) * one.rows * one.tokens);
    if (cost < least) {
      least = cost;
      best = &one;
    }
  }
  return *best;
}

}  // namespace

bool gradient_input_fits(const Device& device, const GradientInput& args) {
  return device.compute_capability == 90 && args.type != DataType::float32 && args.out_features >= 1 &&
         args.out_features % 8 == 0 && args.out_features <= kMaxExtent && args.in_features >= 1 &&
         args.in_features <= kMaxExtent && args.tokens >= 0 && args.tokens <= kMaxExtent &&
         aligned(args.grad, 16) && aligned(args.weights, 16) && aligned(args.grad_x, 2);
}

void gradient_input(const Device& device, const GradientInput& args, Stream stream) {
  if (!gradient_input_fits(device, args)) {
    throw Error("cuda::gradient_input: M = " + std::to_string(args.tokens) +
                ", N = " + std::to_string(args.out_features) + ", K = " + std::to_string(args.in_features) +
                " of " + std::string(name_of(args.type)) + " on compute capability " +
                std::to_string(device.compute_capability) +
                ", wanted bfloat16 or float16 aligned to 16 bytes, N a multiple of 8, on 90");
  }
  if (args.tokens == 0) {
    return;
  }
  const GemmSm90Instance& tile = tile_for(args, device.multiprocessors);
  const std::int64_t row_tiles = ceil_div<std::int64_t>(args.in_features, tile.rows);
  const std::int64_t token_tiles = ceil_div<std::int64_t>(args.tokens, tile.tokens);
  if (row_tiles * ceil_div<std::int64_t>(token_tiles, kTokenTileGroup) * kTokenTileGroup > INT32_MAX) {
    throw Error("cuda::gradient_input: " + std::to_string(row_tiles) + " x " + std::to_string(token_tiles) +
                " tiles, wanted fewer than 2^31");
  }
  GemmSm90Parameters p;
  p.weights = args.weights;
  p.row_scales = args.scale;
  p.y = args.grad_x;
  p.y_stride = args.in_features;
  p.tokens = static_cast<std::int32_t>(args.tokens);
  p.out_features = static_cast<std::int32_t>(args.in_features);
  p.row_blocks = ceil_div(p.out_features, 64);
  p.k_tiles = static_cast<std::int32_t>(ceil_div(args.out_features, kOutputsPerTile));
  p.y_type = args.type;
  p.staged = args.in_features % 8 == 0 && aligned(args.grad_x, 16);
  p.order = tile_order(static_cast<std::int32_t>(row_tiles), static_cast<std::int32_t>(token_tiles));
  const TensorMap grad_map = make_tensor_map({.data = args.grad,
                                              .element_bytes = 2,
                                              .row_elements = args.out_features,
                                              .rows = args.tokens,
                                              .stride_bytes = 2 * args.out_features,
                                              .box_rows = tile.tokens},
                                             "gradient_input: grad");
  TensorMap grad_x_map{};
  if (p.staged) {
    grad_x_map = make_tensor_map({.data = args.grad_x,
                                  .element_bytes = 2,
                                  .row_elements = args.in_features,
                                  .rows = args.tokens,
                                  .stride_bytes = 2 * args.in_features,
                                  .box_rows = tile.tokens},
                                 "gradient_input: grad_x");
  }
  tile.launch({.x_map = grad_map,
               .y_map = grad_x_map,
               .parameters = p,
               .blocks = std::min(p.order.tiles, device.multiprocessors),
               .stream = stream});
}

}  // namespace trit::cuda

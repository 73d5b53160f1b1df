// SPDX-License-Identifier: MIT
//
// pack_weights with group scales: absmean, ternarize_pack, prepare_weights and prepare_group_scales of a float
// matrix. A block takes 64 rows of a span of inputs that is whole groups and whole tiles, so nothing depends on
// another block:
//
//   warps take groups in turn: beta            reads 4 bytes a weight
//   a barrier
//   halves of the block take tiles: codes      reads them again, from L1 where a span is short
#include "cuda/rows/pack_groups.h"

#include <numeric>

#include "cuda/common/checks.h"
#include "cuda/common/group_scales.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/rows/absmean.cuh"
#include "cuda/rows/prepare_tile.cuh"
#include "cuda/rows/ternary.cuh"

namespace trit::cuda {
namespace {

struct Span {
  std::int64_t group;       // inputs
  std::int64_t groups;      // of a row
  std::int64_t tiles;       // of a row
  std::int64_t spans;       // of a row
  unsigned groups_of_span;  // 1, 2 or 4 while a group is no longer than a tile
  unsigned tiles_of_span;
};

__global__ __launch_bounds__(kLanes) void pack_groups_kernel(const PackWeights a, const Span span) {
  auto* const inverse = reinterpret_cast<float*>(dynamic_shared());  // [64][groups_of_span]
  const unsigned thread = threadIdx.x;
  const int lane = static_cast<int>(thread % 32);
  const std::int64_t row_block = blockIdx.x / span.spans;
  const std::int64_t part = blockIdx.x - row_block * span.spans;
  const std::int64_t first_row = row_block * kTileRows;
  const std::int64_t first_group = part * span.groups_of_span;
#pragma unroll 1
  for (unsigned i = thread / 32; i < kTileRows * span.groups_of_span; i += kWarps) {
    const auto local_row = static_cast<int>(i / span.groups_of_span);
    const std::int64_t row = first_row + local_row;
    const std::int64_t g = first_group + i % span.groups_of_span;
    if (g >= span.groups) {
      continue;
    }
    float beta = 0.0F;  // of a row that does not exist
    if (row < a.out_features) {
      const std::int64_t first = g * span.group;
      const std::int64_t count = min(span.group, a.in_features - first);
      beta = beta_of(
          __fdiv_rn(warp_abs_sum(a.w + row * a.in_features + first, count, lane), static_cast<float>(count)));
    }
    if (lane == 0) {
      if (row < a.out_features) {
        inverse[i] = __fdiv_rn(1.0F, beta);
        a.scale[row * span.groups + g] = beta;
      }
      a.group_scale[(row_block * span.groups + g) * kTileRows + scale_place(local_row)] = beta;
    }
  }
  __syncthreads();
  const std::int64_t row_bytes = ceil_div<std::int64_t>(a.in_features, 4);
  const bool vector = a.in_features % 4 == 0 && reinterpret_cast<std::uintptr_t>(a.w) % 16 == 0;
  const std::int64_t first_tile = part * span.tiles_of_span;
#pragma unroll 1
  for (std::int64_t tile = thread / kTileThreads;
       tile < min(std::int64_t{span.tiles_of_span}, span.tiles - first_tile); tile += kLanes / kTileThreads) {
    prepare_tile(row_block * span.tiles + first_tile + tile, static_cast<int>(thread % kTileThreads),
                 a.out_features, a.in_features, a.weights, [&](std::int64_t row, std::int64_t i) {
                   const auto g = static_cast<unsigned>(4 * i) / static_cast<unsigned>(span.group) -
                                  static_cast<unsigned>(first_group);
                   const std::uint32_t byte = ternary_byte(
                       a.w + row * a.in_features + 4 * i, a.in_features - 4 * i,
                       inverse[static_cast<unsigned>(row - first_row) * span.groups_of_span + g], vector);
                   a.codes[row * row_bytes + i] = static_cast<std::uint8_t>(byte);
                   return byte;
                 });
  }
}

}  // namespace

void pack_groups(const PackWeights& args, Stream stream) {
  const std::int64_t tiles = ceil_div<std::int64_t>(args.in_features, kTileInputs);
  const std::int64_t group = std::min(args.group, tiles * kTileInputs);
  const std::int64_t inputs = std::lcm(group, std::int64_t{kTileInputs});
  const Span span{.group = group,
                  .groups = groups_of(args.in_features, group),
                  .tiles = tiles,
                  .spans = ceil_div(args.in_features, inputs),
                  .groups_of_span = static_cast<unsigned>(inputs / group),
                  .tiles_of_span = static_cast<unsigned>(inputs / kTileInputs)};
  const std::int64_t blocks = ceil_div<std::int64_t>(args.out_features, kTileRows) * span.spans;
  if (blocks > 2'147'483'647) {
    throw Error("cuda::pack_weights: " + std::to_string(blocks) + " blocks, wanted at most 2147483647");
  }
  launch<pack_groups_kernel>(
      "pack_groups",
      {.grid = {static_cast<unsigned>(blocks)},
       .block = {kLanes},
       .shared_bytes = static_cast<unsigned>(kTileRows * sizeof(float)) * span.groups_of_span},
      stream, args, span);
}

}  // namespace trit::cuda

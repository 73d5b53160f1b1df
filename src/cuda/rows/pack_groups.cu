// SPDX-License-Identifier: MIT
//
// pack_weights with group scales: absmean, ternarize_pack, prepare_weights and prepare_group_scales of a float
// matrix. Two kernels:
//
//   pack_tile_groups: groups of 32, 64 or 128 (a group that is longer than K is K rounded up to 128), w and its rows
//   aligned to 16 bytes. A warp takes a strip of 16 x 128 weights
//     all of it to registers                     reads 4 bytes a weight, once
//     sums by shuffles, beta, codes, both forms of codes and scales
//
//   pack_groups: any others. A block takes 64 rows of a span of inputs that is whole groups and whole tiles, so
//   nothing depends on another block
//     warps take groups in turn: beta            reads 4 bytes a weight
//     a barrier
//     warps take strips in turn: codes           reads them again, from L1 where a span is short
#include "cuda/rows/pack_groups.h"

#include <numeric>

#include "cuda/common/checks.h"
#include "cuda/common/group_scales.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/rows/absmean.cuh"
#include "cuda/rows/pack_strip.cuh"

namespace trit::cuda {
namespace {

// Small blocks, so that a new one starts when only four warps have ended. 128 registers a thread, 64 of them weights, so that
// all loads are under way at once: 74 us for 8192 x 8192 where 96 registers, five blocks, take 84.
constexpr int kStripThreads = 128;
constexpr int kStripBlocks = 4;

/// lane_sum |w| of the groups of kGroup inputs in eight rows of a tile, of which lane l holds inputs 4 l .. 4 l + 3. Each
/// accumulator has one term at most, so lane_sum is its tree: 64 inputs apart are 16 lanes apart, and so on. With each of
/// its first three steps a lane hands over half of its rows, so it ends up with the sum of one row: lane i of a group's
/// kGroup / 4 lanes with row i / (kGroup / 32).
template <int kGroup>
__device__ __forceinline__ float group_sum(const float4 (&v)[kStripLoads], int lane) {
  float acc[kStripLoads][4];
#pragma unroll
  for (int j = 0; j < kStripLoads; ++j) {
    acc[j][0] = fabsf(v[j].x);
    acc[j][1] = fabsf(v[j].y);
    acc[j][2] = fabsf(v[j].z);
    acc[j][3] = fabsf(v[j].w);
  }
  int rows = kStripLoads;
#pragma unroll
  for (int step = kGroup / 8; step >= 1; step /= 2) {
    const bool upper = (lane & step) != 0;
    const int kept = max(rows / 2, 1);
#pragma unroll
    for (int j = 0; j < kept; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float low = acc[j][c];
        const float high = acc[rows - kept + j][c];
        acc[j][c] = add(upper ? high : low, __shfl_xor_sync(0xffffffffU, upper ? low : high, step));
      }
    }
    rows = kept;
  }
  return add(add(acc[0][0], acc[0][2]), add(acc[0][1], acc[0][3]));
}

template <int kGroup>
__global__ __launch_bounds__(kStripThreads, kStripBlocks) void pack_tile_groups_kernel(const PackWeights a) {
  constexpr int kGroupLanes = kGroup / 4;
  constexpr int kRowLanes = kGroupLanes / kStripLoads;  // lanes that group_sum gives the same row
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  std::uint8_t* const bytes = dynamic_shared() + warp * kStripRows * kStripPitch;
  const std::int64_t tiles = ceil_div<std::int64_t>(a.in_features, kTileInputs);
  const std::int64_t strip = std::int64_t{blockIdx.x} * (kStripThreads / 32) + warp;
  if (strip >= strips_of(a.out_features) * tiles) {
    return;
  }
  const std::int64_t row = strip / tiles * kStripRows;
  const std::int64_t tile = strip % tiles;
  const StripSource<true> source{a.w, a.out_features, a.in_features};
  float4 v[2][kStripLoads];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    source.load(row + half * kStripLoads, tile, lane, v[half]);
  }
  const std::int64_t g = tile * (kTileInputs / kGroup) + lane / kGroupLanes;
  // Of a group beyond K not above 0, and beta may be NaN: its weights are 0, and 0 * NaN has code 0.
  const auto count = static_cast<float>(min(std::int64_t{kGroup}, a.in_features - g * kGroup));
  float beta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    beta[half] = beta_of(__fdiv_rn(group_sum<kGroup>(v[half], lane), count));
    const float inverse = __fdiv_rn(1.0F, beta[half]);
    make_strip_codes(v[half], half, lane, bytes, [&](int own) {
      return __shfl_sync(0xffffffffU, inverse,
                         lane / kGroupLanes * kGroupLanes + own % kStripLoads * kRowLanes);
    });
  }
  store_strip(a, bytes, row, tile, tiles, lane);
  const std::int64_t groups = ceil_div<std::int64_t>(a.in_features, kGroup);
  if (lane % kRowLanes == 0 && g < groups) {
    const int own = lane % kGroupLanes / kRowLanes;  // with row own + 8: neighbours in the prepared order
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t own_row = row + own + half * kStripLoads;
      if (own_row < a.out_features) {
        a.scale[own_row * groups + g] = beta[half];
      } else {
        beta[half] = 0;
      }
    }
    *reinterpret_cast<float2*>(a.group_scale + (row / kTileRows * groups + g) * kTileRows +
                               scale_place(static_cast<int>(row % kTileRows) + own)) =
        float2{beta[0], beta[1]};
  }
}

struct Span {
  std::int64_t group;       // inputs
  std::int64_t groups;      // of a row
  std::int64_t tiles;       // of a row
  std::int64_t spans;       // of a row
  unsigned groups_of_span;  // inputs of a span / group: 1, 2 or 4
  unsigned tiles_of_span;
};

template <bool kVector>
__global__ __launch_bounds__(kLanes, 4) void pack_groups_kernel(const PackWeights a, const Span span) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  std::uint8_t* const bytes = dynamic_shared() + warp * kStripRows * kStripPitch;
  auto* const inverse =
      reinterpret_cast<float*>(dynamic_shared() + kWarps * kStripRows * kStripPitch);  // [64][groups_of_span]
  const std::int64_t row_block = blockIdx.x / span.spans;
  const std::int64_t part = blockIdx.x - row_block * span.spans;
  const std::int64_t first_row = row_block * kTileRows;
  const std::int64_t first_group = part * span.groups_of_span;
#pragma unroll 1
  for (unsigned i = warp; i < kTileRows * span.groups_of_span; i += kWarps) {
    const auto local_row = static_cast<int>(i / span.groups_of_span);
    const std::int64_t row = first_row + local_row;
    const std::int64_t g = first_group + i % span.groups_of_span;
    float beta = 0.0F;  // of a row that does not exist
    if (row < a.out_features && g < span.groups) {
      const float* const values = a.w + row * a.in_features + g * span.group;
      const std::int64_t count = min(span.group, a.in_features - g * span.group);
      const float sum =
          kVector ? warp_abs_sum_vector(values, count, lane) : warp_abs_sum(values, count, lane);
      beta = beta_of(__fdiv_rn(sum, static_cast<float>(count)));
    }
    if (lane == 0) {
      inverse[i] = __fdiv_rn(1.0F, beta);
      if (g < span.groups) {
        a.group_scale[(row_block * span.groups + g) * kTileRows + scale_place(local_row)] = beta;
        if (row < a.out_features) {
          a.scale[row * span.groups + g] = beta;
        }
      }
    }
  }
  __syncthreads();
  const StripSource<kVector> source{a.w, a.out_features, a.in_features};
  const std::int64_t first_tile = part * span.tiles_of_span;
  const auto tiles = static_cast<int>(min(std::int64_t{span.tiles_of_span}, span.tiles - first_tile));
#pragma unroll 1
  for (int i = warp; i < tiles * (kTileRows / kStripRows); i += kWarps) {
    const int local_row = i / tiles * kStripRows;
    const std::int64_t tile = first_tile + i % tiles;
    const unsigned g =
        static_cast<unsigned>(i % tiles * kTileInputs + 4 * lane) / static_cast<unsigned>(span.group);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float4 v[kStripLoads];
      source.load(first_row + local_row + half * kStripLoads, tile, lane, v);
      make_strip_codes(v, half, lane, bytes, [&](int own) {
        return inverse[static_cast<unsigned>(local_row + own) * span.groups_of_span + g];
      });
    }
    store_strip(a, bytes, first_row + local_row, tile, span.tiles, lane);
  }
}

LaunchShape shape_of(std::int64_t blocks, int threads, unsigned shared_bytes) {
  if (blocks > 2'147'483'647) {
    throw Error("cuda::pack_weights: " + std::to_string(blocks) + " blocks, wanted at most 2147483647");
  }
  return {.grid = {static_cast<unsigned>(blocks)},
          .block = {static_cast<unsigned>(threads)},
          .shared_bytes = shared_bytes + static_cast<unsigned>(threads / 32 * kStripRows * kStripPitch)};
}

template <int kGroup>
void pack_tile_groups(const PackWeights& args, std::int64_t tiles, Stream stream) {
  const std::int64_t blocks =
      ceil_div<std::int64_t>(strips_of(args.out_features) * tiles, kStripThreads / 32);
  launch<pack_tile_groups_kernel<kGroup>>("pack_tile_groups", shape_of(blocks, kStripThreads, 0), stream,
                                          args);
}

}  // namespace

void pack_groups(const PackWeights& args, Stream stream) {
  const std::int64_t tiles = ceil_div<std::int64_t>(args.in_features, kTileInputs);
  const std::int64_t group = std::min(args.group, tiles * kTileInputs);
  const bool vector = args.in_features % 4 == 0 && is_aligned(args.w, 16);
  if (vector && kTileInputs % group == 0) {
    return group == 128  ? pack_tile_groups<128>(args, tiles, stream)
           : group == 64 ? pack_tile_groups<64>(args, tiles, stream)
                         : pack_tile_groups<32>(args, tiles, stream);
  }
  const std::int64_t inputs = std::lcm(group, std::int64_t{kTileInputs});
  const Span span{.group = group,
                  .groups = groups_of(args.in_features, group),
                  .tiles = tiles,
                  .spans = ceil_div(args.in_features, inputs),
                  .groups_of_span = static_cast<unsigned>(inputs / group),
                  .tiles_of_span = static_cast<unsigned>(inputs / kTileInputs)};
  const LaunchShape shape =
      shape_of(ceil_div<std::int64_t>(args.out_features, kTileRows) * span.spans, kLanes,
               static_cast<unsigned>(kTileRows * sizeof(float)) * span.groups_of_span);
  if (vector) {
    launch<pack_groups_kernel<true>>("pack_groups", shape, stream, args, span);
  } else {
    launch<pack_groups_kernel<false>>("pack_groups", shape, stream, args, span);
  }
}

}  // namespace trit::cuda

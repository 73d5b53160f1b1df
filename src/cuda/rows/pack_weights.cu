// SPDX-License-Identifier: MIT
//
// pack_weights: absmean, ternarize_pack and prepare_weights in one cooperative launch, for a weight that may
// have changed since its last use. A launch costs the host about 2 us, as much as the rest of a layer's call.
//
//   warps take rows in turn: lane_sum of |w|                   reads 4 N K bytes
//   a barrier of all blocks
//   per tensor: each block adds the rows' sums to beta         reads 4 N bytes from L2
//   warps take strips of 16 x 128 weights in turn, the last first, which L2 may still hold: codes, to both forms
//                                                              reads 4 N K bytes, writes N K / 2
//
// A warp's first half strip is under way while it waits at the barrier, the next one while it makes codes.
#include <algorithm>

#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/rows/absmean.cuh"
#include "cuda/rows/pack_groups.h"
#include "cuda/rows/pack_strip.cuh"

namespace trit::cuda {
namespace {

// Blocks of a multiprocessor, which must all run at once: 80 registers a thread, 768 threads.
constexpr int kBlocks = 3;

/// A barrier of all blocks of a cooperative launch, once. `counter` is zero before and after.
__device__ __forceinline__ void grid_barrier(std::int32_t* counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const int blocks = static_cast<int>(gridDim.x);
    __threadfence();
    atomicAdd(counter, 1);
    while (ptx::load_acquire(counter) < blocks) {
      ptx::spin();
    }
    // The last to leave resets it: every block has seen that all have arrived.
    if (atomicAdd(counter, 1) == 2 * blocks - 1) {
      atomicAdd(counter, -2 * blocks);
    }
    __threadfence();
  }
  __syncthreads();
}

/// beta's inverse of a row.
struct Inverse {
  const float* row_scale;  // [N], or null where `of_tensor` is everyone's
  float of_tensor;
  __device__ __forceinline__ float at(std::int64_t row, std::int64_t rows) const {
    return row_scale == nullptr ? of_tensor : row < rows ? __fdiv_rn(1.0F, __ldcg(row_scale + row)) : 0.0F;
  }
};

/// Strips from the last to the first, `step` apart, by a warp.
template <bool kVector>
struct Strips {
  StripSource<kVector> source;
  std::int64_t count;
  std::int64_t tiles;  // along k
  int lane;

  __device__ __forceinline__ std::int64_t row(std::int64_t i) const {
    return (count - 1 - i) / tiles * kStripRows;
  }
  __device__ __forceinline__ std::int64_t tile(std::int64_t i) const { return (count - 1 - i) % tiles; }
  __device__ __forceinline__ void load(std::int64_t i, int half, float4 (&v)[kStripLoads]) const {
    source.load(row(i) + half * kStripLoads, tile(i), lane, v);
  }
};

template <bool kVector>
__global__ __launch_bounds__(kLanes, kBlocks) void pack_weights_kernel(const PackWeights a) {
  auto* const accumulators = reinterpret_cast<double*>(dynamic_shared());  // [256]
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  std::uint8_t* const bytes =
      reinterpret_cast<std::uint8_t*>(accumulators + kLanes) + warp * kStripRows * kStripPitch;
  const bool per_row = a.granularity == ScaleGranularity::row;
  // Neighbouring rows are different blocks', so that a few rows occupy as many multiprocessors.
  for (std::int64_t row = blockIdx.x + std::int64_t{warp} * gridDim.x; row < a.out_features;
       row += std::int64_t{kWarps} * gridDim.x) {
    const float* const values = a.w + row * a.in_features;
    const float sum = kVector ? warp_abs_sum_vector(values, a.in_features, lane)
                              : warp_abs_sum(values, a.in_features, lane);
    if (lane == 0) {
      (per_row ? a.scale : a.row_sums)[row] =
          per_row ? beta_of(__fdiv_rn(sum, static_cast<float>(a.in_features))) : sum;
    }
  }
  const std::int64_t tiles = ceil_div<std::int64_t>(a.in_features, kTileInputs);
  const Strips<kVector> strips{
      {a.w, a.out_features, a.in_features}, std::int64_t{strips_of(a.out_features)} * tiles, tiles, lane};
  const std::int64_t step = std::int64_t{kWarps} * gridDim.x;
  std::int64_t i = std::int64_t{kWarps} * blockIdx.x + warp;
  float4 v[kStripLoads];
  if (i < strips.count) {
    strips.load(i, 0, v);
  }
  grid_barrier(a.counter);
  Inverse inverse{per_row ? a.scale : nullptr, 0};
  if (!per_row) {
    const float beta = beta_of_rows(a.row_sums, a.out_features, a.in_features, accumulators);
    inverse.of_tensor = __fdiv_rn(1.0F, beta);
    if (blockIdx.x == 0 && thread == 0) {
      a.scale[0] = beta;
    }
  }
  for (; i < strips.count; i += step) {
    const std::int64_t row = strips.row(i);
    const std::int64_t tile = strips.tile(i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      make_strip_codes(v, half, lane, bytes, [&](int own) { return inverse.at(row + own, a.out_features); });
      if (half == 0) {
        strips.load(i, 1, v);
      } else if (i + step < strips.count) {
        strips.load(i + step, 0, v);
      }
    }
    store_strip(a, bytes, row, tile, tiles, lane);
  }
}

}  // namespace

void pack_weights(const Device& device, const PackWeights& args, Stream stream) {
  require_matrix(args.out_features, args.in_features, "pack_weights");
  require_group(args.granularity, args.group, "pack_weights");
  require_aligned(args.w, sizeof(float), "pack_weights", "w");
  require_aligned(args.scale, sizeof(float), "pack_weights", "scale");
  require_aligned(args.codes, 1, "pack_weights", "codes");
  require_aligned(args.weights, 16, "pack_weights", "weights");
  if (args.granularity == ScaleGranularity::group) {
    require_aligned(args.group_scale, 16, "pack_weights", "group_scale");
    return pack_groups(args, stream);
  }
  require_aligned(args.counter, sizeof(std::int32_t), "pack_weights", "counter");
  if (args.granularity == ScaleGranularity::tensor) {
    require_aligned(args.row_sums, sizeof(float), "pack_weights", "row_sums");
  }
  const std::int64_t max_blocks = std::int64_t{device.multiprocessors} * kBlocks;
  const std::int64_t wanted = std::max(
      args.out_features, ceil_div<std::int64_t>(std::int64_t{strips_of(args.out_features)} *
                                                    ceil_div<std::int64_t>(args.in_features, kTileInputs),
                                                kWarps));
  const LaunchShape shape{.grid = {static_cast<unsigned>(std::min(wanted, max_blocks))},
                          .block = {kLanes},
                          .shared_bytes = kLanes * sizeof(double) + kWarps * kStripRows * kStripPitch,
                          .cooperative = true};
  if (args.in_features % 4 == 0 && is_aligned(args.w, 16)) {
    launch<pack_weights_kernel<true>>("pack_weights", shape, stream, args);
  } else {
    launch<pack_weights_kernel<false>>("pack_weights", shape, stream, args);
  }
}

}  // namespace trit::cuda

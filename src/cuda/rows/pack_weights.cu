// SPDX-License-Identifier: MIT
//
// pack_weights: absmean, ternarize_pack and prepare_weights in one cooperative launch, for a weight that may
// have changed since its last use. A launch costs the host about 2 us, as much as the rest of a layer's call.
//
//   blocks take rows in turn: lane_sum of |w|             reads 4 N K bytes
//   a barrier of all blocks
//   per tensor: each block adds the rows' sums to beta    reads 4 N bytes from L2
//   halves of blocks take tiles in turn: codes of 64 x 128 weights, to both forms
//                                                         reads 4 N K bytes, writes N K / 2
#include <algorithm>

#include "cuda/common/checks.h"
#include "cuda/common/groups.h"
#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/rows/absmean.cuh"
#include "cuda/rows/pack_groups.h"
#include "cuda/rows/prepare_tile.cuh"
#include "cuda/rows/ternary.cuh"

namespace trit::cuda {
namespace {

// Blocks of a multiprocessor, which must all run at once: 64 registers a thread, 1,024 threads.
constexpr int kBlocks = 4;

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

__global__ __launch_bounds__(kLanes, kBlocks) void pack_weights_kernel(const PackWeights a) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool per_row = a.granularity == ScaleGranularity::row;
  for (std::int64_t row = blockIdx.x; row < a.out_features; row += gridDim.x) {
    const float sum =
        abs_sum(a.w + row * a.in_features, a.in_features, reinterpret_cast<float*>(dynamic_shared()));
    if (thread == 0) {
      (per_row ? a.scale : a.row_sums)[row] =
          per_row ? beta_of(__fdiv_rn(sum, static_cast<float>(a.in_features))) : sum;
    }
    __syncthreads();  // the accumulators are free
  }
  grid_barrier(a.counter);
  float inverse = 0;
  if (!per_row) {
    const float beta =
        beta_of_rows(a.row_sums, a.out_features, a.in_features, reinterpret_cast<double*>(dynamic_shared()));
    inverse = __fdiv_rn(1.0F, beta);
    if (blockIdx.x == 0 && thread == 0) {
      a.scale[0] = beta;
    }
  }
  const std::int64_t row_bytes = ceil_div<std::int64_t>(a.in_features, 4);
  const bool vector = a.in_features % 4 == 0 && reinterpret_cast<std::uintptr_t>(a.w) % 16 == 0;
  const std::int64_t tiles =
      ceil_div<std::int64_t>(a.out_features, kTileRows) * ceil_div<std::int64_t>(a.in_features, kTileInputs);
  constexpr int kAtOnce = kLanes / kTileThreads;
  for (std::int64_t tile = kAtOnce * std::int64_t{blockIdx.x} + thread / kTileThreads; tile < tiles;
       tile += std::int64_t{kAtOnce} * gridDim.x) {
    prepare_tile(tile, thread % kTileThreads, a.out_features, a.in_features, a.weights,
                 [&](std::int64_t row, std::int64_t i) {
                   const float scale_inverse = per_row ? __fdiv_rn(1.0F, __ldcg(a.scale + row)) : inverse;
                   const std::uint32_t byte = ternary_byte(a.w + row * a.in_features + 4 * i,
                                                           a.in_features - 4 * i, scale_inverse, vector);
                   a.codes[row * row_bytes + i] = static_cast<std::uint8_t>(byte);
                   return byte;
                 });
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
  launch<pack_weights_kernel>("pack_weights",
                              {.grid = {static_cast<unsigned>(std::min(args.out_features, max_blocks))},
                               .block = {kLanes},
                               .shared_bytes = kLanes * sizeof(double),
                               .cooperative = true},
                              stream, args);
}

}  // namespace trit::cuda

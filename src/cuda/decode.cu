// SPDX-License-Identifier: MIT
//
// decode: the product for up to 16 tokens, bound by reading the weights. Every weight is read once, by one
// warp.
//
// A block is P x Q warps. Warp (p, q) owns 16 * S output rows (S strips) and the q-th part of the block's
// range of k:
//
//              k ->  q = 0      q = 1    ...   q = Q - 1
//   rows  p = 0      warp 0     warp P         ...
//         p = 1      warp 1     warp P + 1
//         ...
//
//   shared memory    x of the block's range of k    [tokens][range + 16 bytes]
//                    sums of all its warps          [tokens][P * 16 S + 4]
//
// Weights are the A operand of mma.m16n8k32 (16 rows), tokens its columns: 1 token costs what 8 do. Per tile
// of 128 inputs, a warp loads S * 512 contiguous bytes, two tiles ahead, and does 2 ldmatrix.x4 and 4 S mma
// per 8 tokens. Columns without a token compute what token M - 1 does and are dropped. Inputs past K meet
// zero weights, so what x holds there does not matter. x that does not fit is taken in chunks of k; after
// each, the sums leave the registers, which also keeps them below 2^31 for any K. With programmatic launch
// the first weights are under way before the kernel in front has ended.
#include <algorithm>

#include "cuda/fragments.cuh"
#include "cuda/launch.cuh"
#include "cuda/product.cuh"
#include "cuda/ptx.cuh"

namespace trit::cuda {
namespace {

constexpr int kMaxWarps = 16;
constexpr int kRowPadding =
    16;  // bytes after a token's x: rows start in different banks, ldmatrix is free of conflicts
constexpr int kSumPadding = 4;  // ints after a token's sums: the 4 tokens x 8 rows of a store are in 32 banks

struct Shape {
  int row_warps;
  int k_warps;
  int chunk_tiles;
  int groups;  // of 16 S rows, in the whole matrix
};

template <int kStrips>
struct Weights {
  uint4 strip[kStrips];  // a lane's 16 bytes of each
};

template <int kStrips>
__device__ __forceinline__ Weights<kStrips> load_weights(const std::uint8_t* lane_weights, int tile) {
  Weights<kStrips> w;
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
    w.strip[s] = ptx::load_once_16(lane_weights + std::int64_t{tile} * kTileBytes + s * kStripBytes);
  }
  return w;
}

__device__ __forceinline__ std::uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : (i == 1 ? v.y : (i == 2 ? v.z : v.w));  // i is known at compile time
}

template <int kStrips, int kTokenTiles>
struct Sums {
  std::int32_t of[kStrips][kTokenTiles][4];
};

// One tile of 128 inputs. lane_x[t]: this lane's address for ldmatrix in token tile t, at the tile's first
// input.
template <int kStrips, int kTokenTiles>
__device__ __forceinline__ void multiply_tile(Sums<kStrips, kTokenTiles>& sums,
                                              const Weights<kStrips>& weights,
                                              const std::uint8_t* const (&lane_x)[kTokenTiles]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 64 inputs: two words, one ldmatrix.x4 per 8 tokens
    std::uint32_t x[kTokenTiles][4];
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      ptx::ldmatrix_x4(x[t], lane_x[t] + half * 64);
    }
#pragma unroll
    for (int word = 0; word < 2; ++word) {
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        std::uint32_t a[4];
        unpack(a, word_of(weights.strip[s], 2 * half + word));
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          ptx::mma_m16n8k32(sums.of[s][t], a, x[t][2 * word], x[t][2 * word + 1]);
        }
      }
    }
  }
}

// Adds a warp's sums, shifted to sums of t q, to those of the block, and clears them.
template <int kStrips, int kTokenTiles>
__device__ __forceinline__ void flush(Sums<kStrips, kTokenTiles>& sums, std::int32_t* block_sums, int stride,
                                      int tokens, int first_row, int lane) {
#pragma unroll
  for (int s = 0; s < kStrips; ++s) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = t * 8 + lane % 4 * 2 + i % 2;
        const int row = first_row + s * kStripRows + lane / 4 + 8 * (i / 2);
        if (token < tokens) {
          atomicAdd(&block_sums[token * stride + row], sums.of[s][t][i] >> kCodeShift);
        }
        sums.of[s][t][i] = 0;
      }
    }
  }
}

template <int kStrips, int kTokenTiles>
__global__ __launch_bounds__(kMaxWarps * 32) void decode_kernel(const ProductArguments a, const Shape shape) {
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int q = warp / shape.row_warps;
  const int p = warp - q * shape.row_warps;
  const int tokens = a.out.tokens;
  const int group = static_cast<int>(blockIdx.x) * shape.row_warps + p;
  const int block_rows = shape.row_warps * kStrips * kStripRows;
  const int sum_stride = block_rows + kSumPadding;
  const int x_stride = shape.chunk_tiles * kTileInputs + kRowPadding;
  auto* block_sums = reinterpret_cast<std::int32_t*>(dynamic_shared());        // [tokens][sum_stride]
  std::uint8_t* x = dynamic_shared() + round_up(tokens * sum_stride * 4, 16);  // [tokens][x_stride]

  const bool has_rows = group < shape.groups;
  const int strip = (has_rows ? group : 0) * kStrips;
  const std::uint8_t* lane_weights = a.weights +
                                     tile_offset(strip / (kTileRows / kStripRows), 0, a.tiles_along_k) +
                                     strip % (kTileRows / kStripRows) * kStripBytes + lane * 16;
  Sums<kStrips, kTokenTiles> sums = {};
  for (int i = thread; i < tokens * sum_stride; i += threads) {
    block_sums[i] = 0;
  }

#pragma unroll 1
  for (int chunk = 0; chunk < a.tiles_along_k; chunk += shape.chunk_tiles) {
    const int chunk_tiles = min(shape.chunk_tiles, a.tiles_along_k - chunk);
    const int per_warp = ceil_div(chunk_tiles, shape.k_warps);
    const int begin = min(q * per_warp, chunk_tiles);
    const int end = has_rows ? min(begin + per_warp, chunk_tiles) : begin;
    const std::uint8_t* chunk_weights = lane_weights + std::int64_t{chunk} * kTileBytes;
    Weights<kStrips> next = {};
    Weights<kStrips> after = {};
    if (begin < end) {
      next = load_weights<kStrips>(chunk_weights, begin);
    }
    if (begin + 1 < end) {
      after = load_weights<kStrips>(chunk_weights, begin + 1);
    }

    if (chunk == 0) {
      ptx::wait_for_predecessor();
    } else {
      __syncthreads();  // nobody reads the last chunk's x any more
    }
    const int units = min(chunk_tiles * (kTileInputs / 16), (a.row_bytes - chunk * kTileInputs) / 16);
#pragma unroll 1
    for (int token = 0; token < tokens; ++token) {
      const std::int8_t* from = a.q + std::int64_t{token} * a.row_bytes + chunk * kTileInputs;
      for (int i = thread; i < units; i += threads) {
        ptx::cp_async_16(x + token * x_stride + i * 16, from + i * 16);
      }
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();

    const std::uint8_t* lane_x[kTokenTiles];
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      lane_x[t] = x + min(t * 8 + lane % 8, tokens - 1) * x_stride + lane / 8 * 16 + begin * kTileInputs;
    }
#pragma unroll 1
    for (int tile = begin; tile < end; ++tile) {
      const Weights<kStrips> now = next;
      next = after;
      if (tile + 2 < end) {
        after = load_weights<kStrips>(chunk_weights, tile + 2);
      }
      multiply_tile(sums, now, lane_x);
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        lane_x[t] += kTileInputs;
      }
    }
    flush(sums, block_sums, sum_stride, tokens, p * kStrips * kStripRows, lane);
  }
  __syncthreads();
  ptx::let_successor_start();
  store_tile(a.out, block_sums, sum_stride, 0, tokens, static_cast<int>(blockIdx.x) * block_rows, block_rows);
}

}  // namespace

DecodePlan plan_decode(const Device& device, std::int64_t tokens, std::int64_t out_features,
                       std::int64_t in_features) {
  DecodePlan plan{};
  const auto m = static_cast<int>(tokens);
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, kTileInputs));
  const int strips_of_matrix =
      static_cast<int>(ceil_div<std::int64_t>(out_features, kTileRows)) * (kTileRows / kStripRows);
  // Four strips a warp where even then each multiprocessor has two warps' worth of rows: a load is then a
  // whole tile.
  plan.strips = strips_of_matrix >= 4 * 2 * device.multiprocessors ? 4 : 2;
  const int groups = strips_of_matrix / plan.strips;
  // One wave: as many rows side by side as it takes, the other warps split k.
  plan.row_warps = std::min(ceil_div(groups, device.multiprocessors), kMaxWarps / 2);
  plan.k_warps = std::min(kMaxWarps / plan.row_warps, k_tiles);
  plan.blocks = ceil_div(groups, plan.row_warps);
  const int sum_bytes = round_up(m * (plan.row_warps * plan.strips * kStripRows + kSumPadding) * 4, 16);
  const int x_bytes_per_token = (device.shared_bytes - sum_bytes) / m / 16 * 16;
  const int most = std::min((x_bytes_per_token - kRowPadding) / kTileInputs, kMaxTilesPerSum);
  plan.chunk_tiles = ceil_div(k_tiles, ceil_div(k_tiles, most));  // chunks of one length
  plan.shared_bytes = static_cast<unsigned>(sum_bytes + m * (plan.chunk_tiles * kTileInputs + kRowPadding));
  return plan;
}

void launch_decode(const DecodePlan& plan, const ProductArguments& arguments, bool programmatic,
                   Stream stream) {
  const LaunchShape launch_shape{.grid = {static_cast<unsigned>(plan.blocks)},
                                 .block = {static_cast<unsigned>(32 * plan.row_warps * plan.k_warps)},
                                 .shared_bytes = plan.shared_bytes,
                                 .programmatic = programmatic};
  const int tiles = ceil_div(arguments.out.out_features, kTileRows);
  const Shape shape{.row_warps = plan.row_warps,
                    .k_warps = plan.k_warps,
                    .chunk_tiles = plan.chunk_tiles,
                    .groups = tiles * (kTileRows / kStripRows) / plan.strips};
  const bool two_tiles = arguments.out.tokens > 8;
  if (plan.strips == 4) {
    two_tiles ? launch<decode_kernel<4, 2>>("decode", launch_shape, stream, arguments, shape)
              : launch<decode_kernel<4, 1>>("decode", launch_shape, stream, arguments, shape);
  } else {
    two_tiles ? launch<decode_kernel<2, 2>>("decode", launch_shape, stream, arguments, shape)
              : launch<decode_kernel<2, 1>>("decode", launch_shape, stream, arguments, shape);
  }
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// decode: the product for up to 16 tokens, bound by reading the weights. One warp reads each weight, once.
//
// A block is P x Q warps, block (32, P, Q). Warp (p, q) owns 16 * S output rows (S strips) and the q-th part
// of k:
//
//              k ->  q = 0      q = 1    ...   q = Q - 1
//   rows  p = 0      warp 0     warp P         ...
//         p = 1      warp 1     warp P + 1
//         ...
//
//   shared memory    sums of every warp             [Q][tokens][P * 16 S + 4]
//                    x, for each q its part of k    [Q][tokens][part + 16 bytes]
//
// Weights are the A operand of mma.m16n8k32 (16 rows), tokens its columns: 1 token costs what 8 do. Per tile
// of 128 inputs, a warp loads S * 512 contiguous bytes, kDecodeDepth tiles in advance, and issues 2
// ldmatrix.x4 and 4 S mma per 8 tokens. Columns without a token compute what token M - 1 does and are
// dropped. Inputs past K meet zero weights, so what x holds there does not matter.
//
// The whole kernel takes a few microseconds, so latencies overlap: the first weights and beta are requested
// before the wait for x (with programmatic launch, before the preceding kernel has ended); the P warps of a q
// copy the x that they alone need and synchronise at a barrier of their own; s is loaded before the loop. All
// warps synchronise once, before the sums of the Q parts are added and stored. An x that does not fit is
// taken in chunks of k. After each chunk the sums leave the registers, which also keeps them below 2^31 for
// any K.
#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/decode/decode.h"
#include "cuda/decode/part_of_x.cuh"
#include "cuda/decode/tile.cuh"

namespace trit::cuda {
namespace {

/// How a launch divides its work, computed by the host: the kernel divides no numbers.
struct Shape {
  unsigned groups;           // of 16 S rows, in the whole matrix
  unsigned chunk_tiles;      // along k
  unsigned part_tiles;       // of a warp: chunk_tiles / Q
  unsigned part_over;        // the first chunk_tiles % Q warps take one more
  unsigned x_stride;         // bytes from token to token in a part of x
  unsigned sum_stride;       // ints from token to token in a part's sums
  unsigned x_part;           // bytes of a part of x
  unsigned sum_part;         // ints of a part's sums
  unsigned x_begin;          // byte of shared memory where x starts
  unsigned ring_begin;       // likewise the weights
  unsigned row_block_bytes;  // of the weights of 64 rows
  bool weights_first;
};

// Stores a warp's sums, shifted to sums of t q (the first chunk), or adds them to what is there, and clears
// them. A thread reads back only what it wrote itself.
template <int kStrips, int kTokenTiles>
__device__ __forceinline__ void flush(Sums<kStrips, kTokenTiles>& sums, std::int32_t* warp_sums,
                                      unsigned stride, unsigned tokens, unsigned lane, bool add) {
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (unsigned column = 0; column < 2; ++column) {
      const unsigned token = t * 8 + lane % 4 * 2 + column;
      if (token < tokens) {
        std::int32_t* to = warp_sums + token * stride + lane / 4;
#pragma unroll
        for (unsigned s = 0; s < kStrips; ++s) {
#pragma unroll
          for (unsigned h = 0; h < 2; ++h) {
            std::int32_t& sum = sums.of[s][t][2 * h + column];
            const unsigned at = s * kStripRows + 8 * h;
            to[at] = (add ? to[at] : 0) + (sum >> kCodeShift);
            sum = 0;
          }
        }
      }
    }
  }
}

// kChunked: x does not fit as a whole.
template <int kStrips, int kTokenTiles, bool kChunked>
__global__ __launch_bounds__(kMaxDecodeWarps * 32) void decode_kernel(const ProductArguments a,
                                                                      const Shape shape) {
  constexpr unsigned kWarpRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const auto tokens = static_cast<unsigned>(a.out.tokens);
  const unsigned group = blockIdx.x * blockDim.y + p;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(group, shape.groups - 1);
  const std::uint8_t* lane_weights = a.weights +
                                     std::uint64_t{inside / kGroupsPerBlock} * shape.row_block_bytes +
                                     inside % kGroupsPerBlock * kShareBytes + lane * 16;
  std::uint8_t* const ring =
      dynamic_shared() + shape.ring_begin + (q * blockDim.y + p) * (kDecodeDepth * kShareBytes) + lane * 16;
  const unsigned row = group * kWarpRows + lane;
  float beta[kStrips / 2] = {};
  float bias[kStrips / 2] = {};
  float s = 0.0F;
  Sums<kStrips, kTokenTiles> sums = {};

  const auto tiles_along_k = static_cast<unsigned>(a.tiles_along_k);
  unsigned chunk = 0;
  do {
    unsigned begin = q * shape.part_tiles + min(q, shape.part_over);
    unsigned left = shape.part_tiles + (q < shape.part_over ? 1U : 0U);
    if (kChunked) {  // the last one may be shorter
      const unsigned chunk_tiles = min(shape.chunk_tiles, tiles_along_k - chunk);
      left = begin < chunk_tiles ? min(left, chunk_tiles - begin) : 0U;
      begin += chunk;
    }
    const std::uint8_t* next = lane_weights + std::uint64_t{begin} * kTileBytes;
    const auto start_weights = [&] {
#pragma unroll
      for (unsigned i = 0; i < kDecodeDepth; ++i) {
        if (i < left) {
          copy_weights<kStrips>(ring + i * kShareBytes, next + i * kTileBytes);
        }
        ptx::cp_async_commit();
      }
      next += kDecodeDepth * kTileBytes;
    };
    std::uint8_t* const x = dynamic_shared() + shape.x_begin + q * shape.x_part;
    PartOfX<kTokenTiles> part(a.q, static_cast<unsigned>(a.row_bytes), begin, left, 1, tokens, x,
                              shape.x_stride, lane, p, blockDim.y);
    // With programmatic launch the weights are loaded first, while the preceding kernel still runs. Without
    // it x is loaded first, since it would queue up behind the weights.
    if (shape.weights_first) {
      start_weights();
    }
    if (!kChunked || chunk == 0) {
      if (q < tokens) {
#pragma unroll
        for (unsigned i = 0; i < kStrips / 2; ++i) {
          const unsigned of = min(row + 32 * i, static_cast<unsigned>(a.out.out_features) - 1);
          beta[i] = a.out.weight_scale[a.out.scale_per_row ? of : 0];
          bias[i] = a.out.bias == nullptr ? -0.0F : a.out.bias[of];
        }
      }
      ptx::wait_for_predecessor();
      ptx::let_successor_start();
      s = q < tokens ? a.out.token_scale[q] : 0.0F;
    } else {
      part_barrier(q, blockDim.y);  // no warp reads the last chunk's x any more
    }
    part.load();
    if (!shape.weights_first) {
      start_weights();
    }
    part.store();
#pragma unroll 1
    while (part.any()) {
      part.load();
      part.store();
    }
    part_barrier(q, blockDim.y);

    const std::uint8_t* lane_x[kTokenTiles];
    start_lane_x(lane_x, x, shape.x_stride, tokens, lane);
    std::uint8_t* slot = ring;
#pragma unroll 1
    for (; left > 0; --left) {
      ptx::cp_async_wait<kDecodeDepth - 1>();
      const Weights<kStrips> weights = load_weights<kStrips>(slot);
      multiply_tile(sums, weights, lane_x, [](int) {});
      if (left > kDecodeDepth) {
        copy_weights<kStrips>(slot, next);
      }
      ptx::cp_async_commit();
      next += kTileBytes;
      slot = slot == ring + (kDecodeDepth - 1) * kShareBytes ? ring : slot + kShareBytes;
#pragma unroll
      for (unsigned t = 0; t < kTokenTiles; ++t) {
        lane_x[t] += kTileInputs;
      }
    }
    flush(sums, reinterpret_cast<std::int32_t*>(dynamic_shared()) + q * shape.sum_part + p * kWarpRows,
          shape.sum_stride, tokens, lane, kChunked && chunk > 0);
    chunk += shape.chunk_tiles;
  } while (kChunked && chunk < tiles_along_k);
  __syncthreads();

  // A lane stores rows lane, lane + 32 of its p; the warps of a p share the tokens.
  const std::int32_t* first_part =
      reinterpret_cast<std::int32_t*>(dynamic_shared()) + q * shape.sum_stride + p * kWarpRows + lane;
#pragma unroll 1
  for (unsigned token = q; token < tokens; token += blockDim.z) {
    const float token_scale = s;
    s = token + blockDim.z < tokens ? a.out.token_scale[token + blockDim.z] : 0.0F;
    // The same in every iteration: without this the compiler makes a copy of the loop for each type.
    int type = static_cast<int>(a.out.type);
    ptx::opaque(type);
#pragma unroll
    for (unsigned i = 0; i < kStrips / 2; ++i) {
      const std::int32_t* part = first_part + 32 * i;
      std::int32_t sum = 0;
#pragma unroll
      for (unsigned w = 0; w < kMaxDecodeWarps; ++w) {  // all of them in flight
        sum += w < blockDim.z ? part[w * shape.sum_part] : 0;
      }
      if (row + 32 * i < static_cast<unsigned>(a.out.out_features)) {
        store_output(a.out, static_cast<DataType>(type), static_cast<int>(token),
                     static_cast<int>(row + 32 * i), output_value(sum, token_scale, beta[i], bias[i]));
      }
    }
    first_part += blockDim.z * shape.sum_stride;
  }
}

}  // namespace

void launch_decode(const DecodeLaunch& how, const ProductArguments& arguments, bool programmatic,
                   Stream stream) {
  const DecodePlan& plan = how.plan;
  const LaunchShape launch_shape =
      shape_of_warps(how.blocks, plan.row_warps, plan.k_warps, how.shared_bytes, programmatic);
  const int tokens = arguments.out.tokens;
  const int x_begin = round_up(plan.k_warps * tokens * how.sum_stride * 4, 16);
  const int ring_begin = x_begin + plan.k_warps * tokens * how.x_stride;
  const Shape shape{.groups = static_cast<unsigned>(strips_of(arguments.out.out_features) / plan.strips),
                    .chunk_tiles = static_cast<unsigned>(how.chunk_tiles),
                    .part_tiles = static_cast<unsigned>(how.chunk_tiles / plan.k_warps),
                    .part_over = static_cast<unsigned>(how.chunk_tiles % plan.k_warps),
                    .x_stride = static_cast<unsigned>(how.x_stride),
                    .sum_stride = static_cast<unsigned>(how.sum_stride),
                    .x_part = static_cast<unsigned>(tokens * how.x_stride),
                    .sum_part = static_cast<unsigned>(tokens * how.sum_stride),
                    .x_begin = static_cast<unsigned>(x_begin),
                    .ring_begin = static_cast<unsigned>(ring_begin),
                    .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
                    .weights_first = programmatic};
  const auto start = [&]<int kStrips, int kTokenTiles>() {
    if (how.chunk_tiles < arguments.tiles_along_k) {
      launch<decode_kernel<kStrips, kTokenTiles, true>>("decode", launch_shape, stream, arguments, shape);
    } else {
      launch<decode_kernel<kStrips, kTokenTiles, false>>("decode", launch_shape, stream, arguments, shape);
    }
  };
  start_with_tile(tokens, plan.strips, start);
}

}  // namespace trit::cuda

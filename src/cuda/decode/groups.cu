// SPDX-License-Identifier: MIT
//
// decode with group scales. The warps and their rows are those of kernel.cu; the order of k and what becomes
// of the sums is not. The sum over the groups of a row has one order, so the Q warps that share k take tiles
// in turn, and in rounds of Q tiles hand over the integer sums of their segments (groups.h):
//
//   round       0                1                    warp (p, q): tile Q * round + q of the chunk
//   k tiles     0 .. Q - 1       Q .. 2 Q - 1         then a barrier, then all threads: acc = fma(isum, w, acc)
//
//   shared memory    sums of segments     2 x [Q * segments of a tile][pairs of tokens][rows + 8]  two int16
//                    acc                  [tokens, an even number][rows]    and isum, if groups are longer than a segment
//                    x, for each q        [tokens][part + 16 bytes]
//                    rings of weights
//                    scales of the chunk  [group][rows]
//
// More than 16 tokens are several blocks for the same rows, 16 tokens each: neighbours, which share the weights in
// the second-level cache.
//
// A segment's sum fits in int16: 128 * 128 at most. There are two buffers of segments, so that one barrier a
// round is enough.
#include <algorithm>
#include <string>

#include "cuda/common/group_scales.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/decode/decode.h"
#include "cuda/decode/part_of_x.cuh"
#include "cuda/decode/tile.cuh"

namespace trit::cuda {
namespace {

/// How a launch divides its work, computed by the host. Offsets and strides are bytes of shared memory, or
/// words of four where it says so.
struct GroupShape {
  unsigned warp_groups;      // of 16 S rows, in the whole matrix
  unsigned chunk_tiles;      // along k
  unsigned x_stride;         // from token to token in a part of x
  unsigned x_part;           // of a part of x
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned rows;             // of a block
  unsigned batches;          // of up to 16 tokens
  unsigned pairs;            // of tokens of a batch
  unsigned segment_words;    // of all pairs' sums of a segment
  unsigned buffer_words;     // of the segments of a round
  unsigned acc_begin;        // word
  unsigned x_begin, ring_begin, scale_begin;
  unsigned segment_mask;  // bit w: word w of a tile ends a segment
  unsigned segments_of_tile;
  bool weights_first;
  Groups groups;
};

/// A word's two sums, of the first and the second token of a pair.
__device__ __forceinline__ std::uint32_t pack_sums(std::int32_t first, std::int32_t second) {
  return (static_cast<std::uint32_t>(first >> kCodeShift) & 0xffffU) | static_cast<std::uint32_t>(second)
                                                                           << (16 - kCodeShift);
}

/// A warp's sums of a segment; `to` is this lane's place of pair 0 and the warp's first row.
template <int kStrips, int kTokenTiles>
__device__ __forceinline__ void store_segment(Sums<kStrips, kTokenTiles>& sums, std::uint32_t* to,
                                              unsigned pairs, unsigned pair_stride, unsigned lane) {
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
    if (t * 4 + lane % 4 < pairs) {
#pragma unroll
      for (unsigned s = 0; s < kStrips; ++s) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
          to[t * 4 * pair_stride + s * kStripRows + 8 * h] =
              pack_sums(sums.of[s][t][2 * h], sums.of[s][t][2 * h + 1]);
        }
      }
    }
  }
  sums = {};
}

template <int kStrips, int kTokenTiles>
__global__ __launch_bounds__(kMaxDecodeWarps * 32, 1) void decode_groups_kernel(const ProductArguments a,
                                                                                const GroupShape shape) {
  constexpr unsigned kWarpRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  const Groups& groups = shape.groups;
  const unsigned lane = threadIdx.x;
  const unsigned p = threadIdx.y;
  const unsigned q = threadIdx.z;
  const unsigned k_warps = blockDim.z;
  const unsigned warp = q * blockDim.y + p;
  const unsigned block = shape.batches == 1 ? blockIdx.x : blockIdx.x / shape.batches;
  const unsigned first_token = (blockIdx.x - block * shape.batches) * kMaxDecodeTokens;
  const unsigned tokens = min(static_cast<unsigned>(a.out.tokens) - first_token, unsigned{kMaxDecodeTokens});
  const unsigned pairs = (tokens + 1) / 2;
  const auto out_features = static_cast<unsigned>(a.out.out_features);
  const unsigned group = block * blockDim.y + p;
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned inside = min(group, shape.warp_groups - 1);
  const std::uint8_t* lane_weights = a.weights +
                                     std::uint64_t{inside / kGroupsPerBlock} * shape.row_block_bytes +
                                     inside % kGroupsPerBlock * kShareBytes + lane * 16;
  std::uint8_t* const ring =
      dynamic_shared() + shape.ring_begin + warp * (kDecodeDepth * kShareBytes) + lane * 16;
  std::uint8_t* const x = dynamic_shared() + shape.x_begin + q * shape.x_part;
  auto* const words = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  const unsigned pair_stride = shape.rows + kSegmentPadding;
  const unsigned local_row = p * kWarpRows + lane;  // and 32 further, where a lane adds up the groups
  auto* const acc = reinterpret_cast<float*>(words + shape.acc_begin);
  auto* const isum = reinterpret_cast<std::int32_t*>(acc) + 2 * shape.pairs * shape.rows;
  // Of pairs q, q + Q, ... of its rows; no other thread reads or writes these.
  for (unsigned pair = q; pair < pairs; pair += k_warps) {
#pragma unroll
    for (unsigned i = 0; i < kStrips; ++i) {  // two tokens of kStrips / 2 rows
      const unsigned at = (2 * pair + i % 2) * shape.rows + local_row + i / 2 * 32;
      acc[at] = 0.0F;
      if (groups.per_group > 1) {
        isum[at] = 0;
      }
    }
  }

  const auto tiles_along_k = static_cast<unsigned>(a.tiles_along_k);
  const auto per_group = static_cast<unsigned>(groups.per_group);
  unsigned chunk = 0;
  do {
    const unsigned chunk_tiles = min(shape.chunk_tiles, tiles_along_k - chunk);
    const unsigned left = q < chunk_tiles ? (chunk_tiles - q - 1) / k_warps + 1 : 0U;
    const unsigned first_group = chunk * shape.segments_of_tile / per_group;
    const unsigned last_group = min(static_cast<unsigned>(groups.count) - 1,
                                    ((chunk + chunk_tiles) * shape.segments_of_tile - 1) / per_group);
    if (chunk > 0) {
      __syncthreads();  // no warp reads the last chunk's x, nor its scales
    }
    const std::uint8_t* next = lane_weights + std::uint64_t{chunk + q} * kTileBytes;
    const auto start_weights = [&] {
      start_scales(groups, first_group, last_group - first_group + 1, block * blockDim.y * kStrips,
                   blockDim.y * kStrips, shape.warp_groups * kStrips, dynamic_shared() + shape.scale_begin,
                   warp * 32 + lane, blockDim.y * k_warps * 32);
#pragma unroll
      for (unsigned i = 0; i < kDecodeDepth; ++i) {
        if (i < left) {
          copy_weights<kStrips>(ring + i * kShareBytes, next + std::uint64_t{i * k_warps} * kTileBytes);
        }
        ptx::cp_async_commit();
      }
      next += std::uint64_t{kDecodeDepth * k_warps} * kTileBytes;
    };
    PartOfX<kTokenTiles> part(a.q + std::uint64_t{first_token} * static_cast<unsigned>(a.row_bytes),
                              static_cast<unsigned>(a.row_bytes), chunk + q, left, k_warps, tokens, x,
                              shape.x_stride, lane, p, blockDim.y);
    if (shape.weights_first) {
      start_weights();
    }
    if (chunk == 0) {
      ptx::wait_for_predecessor();
      ptx::let_successor_start();
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
    unsigned buffer = 0;
#pragma unroll 1
    for (unsigned round = 0; round * k_warps < chunk_tiles; ++round) {
      if (round < left) {
        ptx::cp_async_wait<kDecodeDepth - 1>();
        const Weights<kStrips> weights = load_weights<kStrips>(slot);
        Sums<kStrips, kTokenTiles> sums = {};
        std::uint32_t* to = words + buffer + q * shape.segments_of_tile * shape.segment_words +
                            lane % 4 * pair_stride + p * kWarpRows + lane / 4;
        multiply_tile(sums, weights, lane_x, [&](int word) {
          if (word == 3 || (shape.segment_mask >> word & 1U) != 0) {
            store_segment(sums, to, pairs, pair_stride, lane);
            to += shape.segment_words;
          }
        });
        if (left - round > kDecodeDepth) {
          copy_weights<kStrips>(slot, next);
        }
        ptx::cp_async_commit();
        next += std::uint64_t{k_warps} * kTileBytes;
        slot = slot == ring + (kDecodeDepth - 1) * kShareBytes ? ring : slot + kShareBytes;
#pragma unroll
        for (unsigned t = 0; t < kTokenTiles; ++t) {
          lane_x[t] += kTileInputs;
        }
      } else {
        ptx::cp_async_wait<0>();  // the scales, in a first round
      }
      __syncthreads();

      const unsigned first_tile = chunk + round * k_warps;
      const unsigned first_segment = first_tile * shape.segments_of_tile;
      const unsigned rest = static_cast<unsigned>(groups.segments) - first_segment;
      const unsigned count =
          min(min(k_warps, chunk + chunk_tiles - first_tile) * shape.segments_of_tile, rest);
      const unsigned round_group = per_group == 1 ? first_segment : first_segment / per_group;
      const unsigned place = per_group == 1 ? 0U : first_segment - round_group * per_group;
      const unsigned scale_step = shape.rows;
#pragma unroll 1
      for (unsigned pair = q; pair < pairs; pair += k_warps) {
#pragma unroll
        for (unsigned i = 0; i < kStrips / 2; ++i) {
          const unsigned row = local_row + 32 * i;
          const std::uint32_t* from = words + buffer + pair * pair_stride + row;
          const auto segment = [&](unsigned s, std::int32_t(&sums)[2]) {
            const std::uint32_t word = from[s * shape.segment_words];
            sums[0] = static_cast<std::int16_t>(word & 0xffffU);
            sums[1] = static_cast<std::int32_t>(word) >> 16;
          };
          const unsigned scale_at_row = (round_group - first_group) * scale_step +
                                        static_cast<unsigned>(scale_place(static_cast<int>(row)));
          const void* const scales = dynamic_shared() + shape.scale_begin;
          const float* const token_scale =
              a.out.token_scale +
              std::uint64_t{first_token + 2 * pair} * static_cast<unsigned>(groups.count) + round_group;
          const unsigned second = 2 * pair + 1 < tokens ? static_cast<unsigned>(groups.count) : 0U;
          const auto of_token = [&](unsigned g, int v) { return token_scale[g + (v == 0 ? 0U : second)]; };
          GroupSum<2> sum;
          const unsigned at = 2 * pair * shape.rows + row;
#pragma unroll
          for (unsigned v = 0; v < 2; ++v) {
            sum.acc[v] = acc[at + v * shape.rows];
            sum.isum[v] = per_group > 1 ? isum[at + v * shape.rows] : 0;
          }
          sum.add<4, 8>(groups, count, place, rest - 1, segment, scales, scale_at_row, scale_step, of_token);
#pragma unroll
          for (unsigned v = 0; v < 2; ++v) {
            acc[at + v * shape.rows] = sum.acc[v];
            if (per_group > 1) {
              isum[at + v * shape.rows] = sum.isum[v];
            }
          }
        }
      }
      buffer = shape.buffer_words - buffer;
    }
    chunk += shape.chunk_tiles;
  } while (chunk < tiles_along_k);

  // A lane stores rows lane, lane + 32 of its p; the warps of a p share the tokens.
  int type = static_cast<int>(a.out.type);
  ptx::opaque(type);
#pragma unroll 1
  for (unsigned pair = q; pair < pairs; pair += k_warps) {
#pragma unroll 1
    for (unsigned token = 2 * pair; token < min(2 * pair + 2, tokens); ++token) {
      const float s = groups.token_groups ? 1.0F : a.out.token_scale[first_token + token];
#pragma unroll
      for (unsigned i = 0; i < kStrips / 2; ++i) {
        const unsigned row = group * kWarpRows + lane + 32 * i;
        if (row < out_features) {
          const float bias = a.out.bias == nullptr ? -0.0F : a.out.bias[row];
          store_output(a.out, static_cast<DataType>(type), static_cast<int>(first_token + token),
                       static_cast<int>(row),
                       __fadd_rn(__fmul_rn(acc[token * shape.rows + local_row + 32 * i], s), bias));
        }
      }
    }
  }
}

}  // namespace

void launch_decode_groups(const DecodeLaunch& how, const ProductArguments& arguments, const Groups& groups,
                          bool programmatic, Stream stream) {
  const DecodePlan& plan = how.plan;
  const std::int64_t batches = ceil_div(arguments.out.tokens, kMaxDecodeTokens);
  if (how.blocks * batches > 2'147'483'647) {
    throw Error("cuda::product: " + std::to_string(arguments.out.tokens) + " tokens x " +
                std::to_string(arguments.out.out_features) + " outputs are too many blocks for decode");
  }
  const LaunchShape launch_shape = shape_of_warps(how.blocks * static_cast<int>(batches), plan.row_warps,
                                                  plan.k_warps, how.shared_bytes, programmatic);
  const int tokens = std::min(arguments.out.tokens, kMaxDecodeTokens);
  const int rows = plan.row_warps * plan.strips * kStripRows;
  const int pairs = ceil_div(tokens, 2);
  const int segments_of_tile = kTileInputs / groups.segment;
  const int segment_words = pairs * (rows + kSegmentPadding);
  const int buffer_words = plan.k_warps * segments_of_tile * segment_words;
  const int x_begin = round_up(group_sum_bytes(plan, tokens, groups), 16);
  const int ring_begin = x_begin + plan.k_warps * tokens * how.x_stride;
  const int scale_begin =
      ring_begin + plan.k_warps * plan.row_warps * kDecodeDepth * plan.strips * kStripBytes;
  const GroupShape shape{
      .warp_groups = static_cast<unsigned>(strips_of(arguments.out.out_features) / plan.strips),
      .chunk_tiles = static_cast<unsigned>(how.chunk_tiles),
      .x_stride = static_cast<unsigned>(how.x_stride),
      .x_part = static_cast<unsigned>(tokens * how.x_stride),
      .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
      .rows = static_cast<unsigned>(rows),
      .batches = static_cast<unsigned>(batches),
      .pairs = static_cast<unsigned>(pairs),
      .segment_words = static_cast<unsigned>(segment_words),
      .buffer_words = static_cast<unsigned>(buffer_words),
      .acc_begin = static_cast<unsigned>(2 * buffer_words),
      .x_begin = static_cast<unsigned>(x_begin),
      .ring_begin = static_cast<unsigned>(ring_begin),
      .scale_begin = static_cast<unsigned>(scale_begin),
      .segment_mask = segment_mask(segments_of_tile),
      .segments_of_tile = static_cast<unsigned>(segments_of_tile),
      .weights_first = programmatic,
      .groups = groups};
  const auto start = [&]<int kStrips, int kTokenTiles>() {
    launch<decode_groups_kernel<kStrips, kTokenTiles>>("decode_groups", launch_shape, stream, arguments,
                                                       shape);
  };
  start_with_tile(tokens, plan.strips, start);
}

}  // namespace trit::cuda

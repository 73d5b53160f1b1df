// SPDX-License-Identifier: MIT
//
// decode with group scales, k shared by Q warps. The warps, their rows and their parts of k are those of kernel.cu; what
// becomes of the sums is not, since the sum over the groups of a row has one order. Every warp leaves the integer sums of
// its segments (groups.h) in shared memory, for a whole chunk of k. Then a barrier, and all threads add up the groups of
// the chunk, each its rows and tokens. (With rows for enough warps none shares k: whole_groups.cu.)
//
//   shared memory    sums of segments     [segments of the chunk][pairs of tokens][rows + 8]  two int16
//                    acc                  [tokens, an even number][rows]    and isum, if groups are longer
//                    x, for each q        [tokens][part + 16 bytes]
//                    rings of weights
//                    scales of the chunk  [p][group][rows of a warp]
//
// More than 16 tokens are several blocks for the same rows, 16 tokens each: neighbours, which share the weights in
// the second-level cache. A segment's sum fits in int16: 128 * 128 at most.
#include <algorithm>
#include <string>

#include "cuda/common/launch.cuh"
#include "cuda/decode/decode.h"
#include "cuda/decode/group_sums.cuh"
#include "cuda/decode/part_of_x.cuh"

namespace trit::cuda {
namespace {

/// How a launch divides its work, computed by the host. Offsets and strides are bytes of shared memory, or
/// words of four where it says so.
struct GroupShape {
  unsigned warp_groups;      // of 16 S rows, in the whole matrix
  unsigned chunk_tiles;      // along k
  unsigned part_tiles;       // of a warp: chunk_tiles / Q
  unsigned part_over;        // the first chunk_tiles % Q warps take one more
  unsigned x_stride;         // from token to token in a part of x
  unsigned x_part;           // of a part of x
  unsigned row_block_bytes;  // of the weights of 64 rows
  unsigned rows;             // of a block
  unsigned batches;          // of up to 16 tokens
  unsigned pairs;            // of tokens of a batch
  unsigned segment_words;    // of all pairs' sums of a segment
  unsigned acc_begin;        // word
  unsigned x_begin, ring_begin, scale_begin;
  unsigned warp_scale_bytes;  // of the scales of a warp's rows, for a chunk
  unsigned segment_mask;      // bit w: word w of a tile ends a segment
  unsigned segments_of_tile;
  bool weights_first;
  Groups groups;
};

/// kOneSegment: a tile is one. Otherwise the loop asks behind every word, with four copies of what a segment's end does.
template <int kStrips, int kTokenTiles, bool kOneSegment>
__global__ __launch_bounds__(kMaxDecodeWarps * 32, 1) void decode_groups_kernel(const ProductArguments a,
                                                                                const GroupShape shape) {
  constexpr unsigned kWarpRows = kStrips * kStripRows;
  constexpr unsigned kGroupsPerBlock = kTileRows / kWarpRows;
  constexpr unsigned kShareBytes = kStrips * kStripBytes;  // of a tile
  constexpr int kDepth = kDecodeDepth;
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
  std::uint8_t* const ring = dynamic_shared() + shape.ring_begin + warp * (kDepth * kShareBytes) + lane * 16;
  std::uint8_t* const x = dynamic_shared() + shape.x_begin + q * shape.x_part;
  std::uint8_t* const scales = dynamic_shared() + shape.scale_begin + p * shape.warp_scale_bytes;
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
  Sums<kStrips, kTokenTiles> sums = {};

  const auto tiles_along_k = static_cast<unsigned>(a.tiles_along_k);
  const auto per_group = static_cast<unsigned>(groups.per_group);
  const auto segments = static_cast<unsigned>(groups.segments);
  unsigned chunk = 0;
  do {
    const unsigned chunk_tiles = min(shape.chunk_tiles, tiles_along_k - chunk);
    unsigned begin = q * shape.part_tiles + min(q, shape.part_over);
    unsigned left = shape.part_tiles + (q < shape.part_over ? 1U : 0U);
    left = begin < chunk_tiles ? min(left, chunk_tiles - begin) : 0U;  // the last chunk may be shorter
    const unsigned first_segment = chunk * shape.segments_of_tile;
    const unsigned first_group = per_group == 1 ? first_segment : first_segment / per_group;
    if (chunk > 0) {
      __syncthreads();  // no warp reads the last chunk's x, sums or scales any more
    }
    const std::uint8_t* next = lane_weights + std::uint64_t{chunk + begin} * kTileBytes;
    const auto start_weights = [&] {
#pragma unroll
      for (unsigned i = 0; i < kDepth; ++i) {
        if (i < left) {
          copy_weights<kStrips>(ring + i * kShareBytes, next + i * kTileBytes);
        }
        if (i == kDepth - 1) {  // they are not urgent
          copy_scales<kStrips>(groups, inside, first_segment + begin * shape.segments_of_tile,
                               left * shape.segments_of_tile, q == 0, first_group, scales, lane);
        }
        ptx::cp_async_commit();
      }
      next += kDepth * kTileBytes;
    };
    PartOfX<kTokenTiles> part(a.q + std::uint64_t{first_token} * static_cast<unsigned>(a.row_bytes),
                              static_cast<unsigned>(a.row_bytes), chunk + begin, left, 1, tokens, x,
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
    std::uint32_t* to = words + begin * shape.segments_of_tile * shape.segment_words +
                        lane % 4 * pair_stride + p * kWarpRows + lane / 4;
#pragma unroll 1
    for (; left > 0; --left) {
      ptx::cp_async_wait<kDepth - 1>();
      const Weights<kStrips> weights = load_weights<kStrips>(slot);
      multiply_tile(sums, weights, lane_x, [&](int word) {
        if (word < 3 && (kOneSegment || (shape.segment_mask >> word & 1U) == 0)) {
          return;
        }
        store_segment(sums, to, pairs, pair_stride, lane);
        to += shape.segment_words;
      });
      if (left > kDepth) {
        copy_weights<kStrips>(slot, next);
      }
      ptx::cp_async_commit();
      next += kTileBytes;
      slot = slot == ring + (kDepth - 1) * kShareBytes ? ring : slot + kShareBytes;
#pragma unroll
      for (unsigned t = 0; t < kTokenTiles; ++t) {
        lane_x[t] += kTileInputs;
      }
    }
    ptx::cp_async_wait<0>();  // the scales
    __syncthreads();
    const unsigned rest = segments - first_segment;
    const unsigned count = min(chunk_tiles * shape.segments_of_tile, rest);
    const unsigned first_place = first_segment - first_group * per_group;
#pragma unroll 1
    for (unsigned pair = q; pair < pairs; pair += k_warps) {
#pragma unroll
      for (unsigned i = 0; i < kStrips / 2; ++i) {
        const unsigned row = local_row + 32 * i;
        const std::uint32_t* from = words + pair * pair_stride + row;
        const auto segment = [&](unsigned s, std::int32_t(&of)[2]) {
          const std::uint32_t word = from[s * shape.segment_words];
          of[0] = static_cast<std::int16_t>(word & 0xffffU);
          of[1] = static_cast<std::int32_t>(word) >> 16;
        };
        const auto scale_at_row = static_cast<unsigned>(scale_place(static_cast<int>(lane + 32 * i)));
        const float* const of_first =
            a.out.token_scale + std::uint64_t{first_token + 2 * pair} * static_cast<unsigned>(groups.count) +
            first_group;
        const unsigned second = 2 * pair + 1 < tokens ? static_cast<unsigned>(groups.count) : 0U;
        const auto of_token = [&](unsigned g, int v) { return of_first[g + (v == 0 ? 0U : second)]; };
        GroupSum<2> sum;
        const unsigned at = 2 * pair * shape.rows + row;
#pragma unroll
        for (unsigned v = 0; v < 2; ++v) {
          sum.acc[v] = acc[at + v * shape.rows];
          sum.isum[v] = per_group > 1 ? isum[at + v * shape.rows] : 0;
        }
        sum.add<4, 8>(groups, count, first_place, rest - 1, segment, scales, scale_at_row, kWarpRows,
                      of_token);
#pragma unroll
        for (unsigned v = 0; v < 2; ++v) {
          acc[at + v * shape.rows] = sum.acc[v];
          if (per_group > 1) {
            isum[at + v * shape.rows] = sum.isum[v];
          }
        }
      }
    }
    chunk += shape.chunk_tiles;
  } while (chunk < tiles_along_k);

  int type = static_cast<int>(a.out.type);
  ptx::opaque(type);
  const auto store = [&](unsigned token, unsigned row, float sum, float s) {
    const float bias = a.out.bias == nullptr ? -0.0F : a.out.bias[row];
    store_output(a.out, static_cast<DataType>(type), static_cast<int>(first_token + token),
                 static_cast<int>(row), __fadd_rn(__fmul_rn(sum, s), bias));
  };
  // A lane stores rows lane, lane + 32 of its p; the warps of a p share the tokens.
#pragma unroll 1
  for (unsigned pair = q; pair < pairs; pair += k_warps) {
#pragma unroll 1
    for (unsigned token = 2 * pair; token < min(2 * pair + 2, tokens); ++token) {
      const float s = groups.token_groups ? 1.0F : a.out.token_scale[first_token + token];
#pragma unroll
      for (unsigned i = 0; i < kStrips / 2; ++i) {
        const unsigned row = group * kWarpRows + lane + 32 * i;
        if (row < out_features) {
          store(token, row, acc[token * shape.rows + local_row + 32 * i], s);
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
  const int warp_rows = plan.strips * kStripRows;
  const int rows = plan.row_warps * warp_rows;
  const int pairs = ceil_div(tokens, 2);
  const int segments_of_tile = kTileInputs / groups.segment;
  const GroupSumBytes sums = group_sum_bytes(plan, tokens, groups);
  const int acc_begin = how.chunk_tiles * sums.tile;
  const int x_begin = round_up(acc_begin + sums.fixed, 16);
  const int ring_begin = x_begin + plan.k_warps * tokens * how.x_stride;
  const int scale_begin =
      ring_begin + plan.k_warps * plan.row_warps * kDecodeDepth * plan.strips * kStripBytes;
  const GroupShape shape{
      .warp_groups = static_cast<unsigned>(strips_of(arguments.out.out_features) / plan.strips),
      .chunk_tiles = static_cast<unsigned>(how.chunk_tiles),
      .part_tiles = static_cast<unsigned>(how.chunk_tiles / plan.k_warps),
      .part_over = static_cast<unsigned>(how.chunk_tiles % plan.k_warps),
      .x_stride = static_cast<unsigned>(how.x_stride),
      .x_part = static_cast<unsigned>(tokens * how.x_stride),
      .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
      .rows = static_cast<unsigned>(rows),
      .batches = static_cast<unsigned>(batches),
      .pairs = static_cast<unsigned>(pairs),
      .segment_words = static_cast<unsigned>(pairs * (rows + kSegmentPadding)),
      .acc_begin = static_cast<unsigned>(acc_begin / 4),
      .x_begin = static_cast<unsigned>(x_begin),
      .ring_begin = static_cast<unsigned>(ring_begin),
      .scale_begin = static_cast<unsigned>(scale_begin),
      .warp_scale_bytes =
          static_cast<unsigned>(groups_in_chunk(how.chunk_tiles, groups) * warp_rows * (groups.half ? 2 : 4)),
      .segment_mask = segment_mask(segments_of_tile),
      .segments_of_tile = static_cast<unsigned>(segments_of_tile),
      .weights_first = programmatic,
      .groups = groups};
  const auto start = [&]<int kStrips, int kTokenTiles>() {
    if (segments_of_tile == 1) {
      launch<decode_groups_kernel<kStrips, kTokenTiles, true>>("decode_groups", launch_shape, stream,
                                                               arguments, shape);
    } else {
      launch<decode_groups_kernel<kStrips, kTokenTiles, false>>("decode_groups", launch_shape, stream,
                                                                arguments, shape);
    }
  };
  start_with_tile(tokens, plan.strips, start);
}

}  // namespace trit::cuda

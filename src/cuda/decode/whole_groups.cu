// SPDX-License-Identifier: MIT
//
// decode with group scales. The sum over the groups of a row has one order, so a warp has all of k for its 16 rows and
// up to 16 tokens, and adds up in its registers. With rows for one or two warps a multiprocessor, two warps share a
// strip, eight tokens each.
//
//   block (32, P, Q): P strips of 16 rows, Q parts of the tokens
//
// k goes through shared memory in stages of four tiles, a ring of four stages: x for all warps, the weights of P
// strips, the scales of the groups. All warps copy, one barrier a stage. A stage is 12 to 40 KB, so that with
// programmatic launch the next kernel's first stages arrive beside this one.
//
//   stage    x [tokens][512 + 16 bytes] | weights [p][tile][512 bytes] | scales [p][group][16 rows]
//            | token scales [group][16]
//
// Groups that are no segments of 64 or 128 inputs (common/groups.h) take a kernel that asks behind every word of weights
// whether a group ends, and reads its scales from memory.
//
// More than 16 tokens are several blocks for the same rows, 16 tokens each: neighbours, which share the weights in
// the second-level cache.
#include <algorithm>
#include <string>

#include "cuda/common/launch.cuh"
#include "cuda/decode/stage_copy.cuh"
#include "cuda/decode/whole_sums.cuh"

namespace trit::cuda {
namespace {

/// kSegments: of a tile, 1 or 2, each of which is a group; 0: any groups, and kHalf is not used.
template <int kTokenTiles, int kSegments, bool kHalf, bool kTokenGroups>
__global__ __launch_bounds__(kMaxDecodeWarps * 32,
                             1) void decode_whole_groups_kernel(const ProductArguments a,
                                                                const WholeShape shape, bool weights_first) {
  using Copy = StageCopy<kSegments, kHalf, kTokenGroups>;
  const Groups& groups = shape.groups;
  const unsigned lane = threadIdx.x;
  const unsigned block = shape.batches == 1 ? blockIdx.x : blockIdx.x / shape.batches;
  const unsigned first_token = (blockIdx.x - block * shape.batches) * kMaxDecodeTokens;
  const unsigned tokens = min(static_cast<unsigned>(a.out.tokens) - first_token, unsigned{kMaxDecodeTokens});
  const auto out_features = static_cast<unsigned>(a.out.out_features);
  // Warps beyond the matrix do what the last one does and store nothing.
  const unsigned strip = block * blockDim.y + threadIdx.y;
  const unsigned inside = min(strip, shape.strips - 1);
  Copy copy(a, shape, inside, a.q + std::uint64_t{first_token} * static_cast<unsigned>(a.row_bytes), tokens,
            lane);
  const std::uint32_t base = ptx::shared_address(dynamic_shared());
  const unsigned ring_bytes = kStages * shape.stage_bytes;
  if (weights_first) {
#pragma unroll 1
    for (unsigned i = 0; i < min(kStages - 1U, shape.stages); ++i) {
      copy.copy_weights(base + i * shape.stage_bytes);
    }
  }
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
#pragma unroll 1
  for (unsigned i = 0; i < kStages - 1U; ++i) {
    if (i < shape.stages) {
      copy.copy_x(base + i * shape.stage_bytes, a, shape, first_token);
      if (!weights_first) {
        copy.copy_weights(base + i * shape.stage_bytes);
      }
    }
    ptx::cp_async_commit();
  }
  // Tokens of the lane's columns, and of its rows of ldmatrix.
  const unsigned warp_token = threadIdx.z * 8 * kTokenTiles;
  float token_scale[kTokenTiles][2];
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned token = first_token + min(warp_token + t * 8 + lane % 4 * 2 + i, tokens - 1);
      token_scale[t][i] = groups.token_groups ? 1.0F : a.out.token_scale[token];
    }
  }
  std::uint32_t lane_x[kTokenTiles];
#pragma unroll
  for (unsigned t = 0; t < kTokenTiles; ++t) {
    lane_x[t] = min(warp_token + t * 8 + lane % 8, tokens - 1) * kStageXStride + lane / 8 * 16;
  }
  LaneAccumulators<kTokenTiles> acc;

  // Groups that are segments: kTiles tiles of a stage from `tile` on, and all of their groups, or groups_left from the
  // stage's first one.
  const std::uint32_t lane_weights =
      shape.weight_begin + threadIdx.y * (kStageTiles * kStripBytes) + lane * 16;
  const unsigned lane_scales = shape.scale_begin + threadIdx.y * (Copy::kGroups * Copy::kStripScaleBytes) +
                               lane / 4 * (2 * (kHalf ? 2 : 4));
  const unsigned lane_token_scales = shape.token_scale_begin + (warp_token + lane % 4 * 2) * 4;
  const auto add_group = [&](const LaneSums<kTokenTiles>& sums, unsigned stage_at, unsigned group) {
    const std::uint8_t* const stage = dynamic_shared() + stage_at;
    float beta[2];
    load_scale_pair<kHalf>(stage + lane_scales + group * Copy::kStripScaleBytes, beta);
    if constexpr (kTokenGroups) {
      float w[kTokenTiles][4];
#pragma unroll
      for (unsigned t = 0; t < kTokenTiles; ++t) {
        const auto of_tokens = *reinterpret_cast<const float2*>(stage + lane_token_scales +
                                                                (group * kMaxDecodeTokens + t * 8) * 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[t][i] = __fmul_rn(beta[i / 2], i % 2 == 0 ? of_tokens.x : of_tokens.y);
        }
      }
      acc.add(sums, w);
    } else if constexpr (kHalf) {
      // The weights' factor of 64 is taken into the scale, which is exact for every float16.
      const float w[2] = {__fmul_rn(beta[0], kWeightFactor), __fmul_rn(beta[1], kWeightFactor)};
      acc.add(sums, w);
    } else {
      float w[kTokenTiles][4];
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[t][i] = beta[i / 2];
        }
      }
      acc.add(sums, w);
    }
  };
  const auto multiply_tiles = [&]<unsigned kTiles, bool kAll>(unsigned stage_at, unsigned tile,
                                                              unsigned groups_left) {
    LaneSums<kTokenTiles> sums[kTiles];
    uint4 weights[kTiles];
#pragma unroll
    for (unsigned i = 0; i < kTiles; ++i) {
      weights[i] = ptx::shared_load(base + stage_at + lane_weights + (tile + i) * kStripBytes);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      LaneInputs64<kTokenTiles> x[kTiles];
#pragma unroll
      for (unsigned i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t) {
          ptx::ldmatrix_x4(x[i].x[t], base + stage_at + lane_x[t] + (tile + i) * kTileInputs + half * 64);
        }
        if (half == 0 || kSegments == 2) {
          sums[i].start(sums[i].kFloatOrigin);
        }
      }
#pragma unroll
      for (int word = 0; word < 2; ++word) {
#pragma unroll
        for (unsigned i = 0; i < kTiles; ++i) {
          x[i].multiply(sums[i], word_of(weights[i], 2 * half + word), word);
        }
      }
      if (half == 1 || kSegments == 2) {
#pragma unroll
        for (unsigned i = 0; i < kTiles; ++i) {
          const unsigned group = kSegments == 2 ? 2 * (tile + i) + half : tile + i;
          if (kAll || group < groups_left) {
            add_group(sums[i], stage_at, group);
          }
        }
      }
    }
  };

  // Any groups.
  const auto per_group = static_cast<unsigned>(groups.per_group);
  const auto segments = static_cast<unsigned>(groups.segments);
  const auto count = static_cast<unsigned>(groups.count);
  std::int32_t isum[kTokenTiles][4] = {};
  unsigned place = 0;
  unsigned segment = 0;
  unsigned group_number = 0;
  float next_beta[2] = {};
  float next_token_scale[kTokenTiles][2] = {};
  const auto load_next_scales = [&] {
    const std::uint8_t* const of_rows = static_cast<const std::uint8_t*>(groups.scale) +
                                        std::uint64_t{inside / kStripsPerBlock} * shape.scale_block_bytes;
    const unsigned at =
        (group_number * kStripsPerBlock + inside % kStripsPerBlock) * kStripRows + lane / 4 * 2;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      next_beta[i] = groups.half ? scale_at<true>(of_rows, at + i) : scale_at<false>(of_rows, at + i);
    }
    if (groups.token_groups) {
#pragma unroll
      for (unsigned t = 0; t < kTokenTiles; ++t) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
          const unsigned token = first_token + min(warp_token + t * 8 + lane % 4 * 2 + i, tokens - 1);
          next_token_scale[t][i] = a.out.token_scale[std::uint64_t{token} * count + group_number];
        }
      }
    }
  };
  const auto end_segment = [&](LaneSums<kTokenTiles>& sums) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        isum[t][i] += sums.of[t][i] >> kCodeShift;
      }
    }
    sums.start(0);
    ++segment;
    // What a last tile holds beyond the inputs is zero and belongs to no group.
    if (segment > segments || (++place < per_group && segment < segments)) {
      return;
    }
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float w =
            groups.token_groups ? __fmul_rn(next_beta[i / 2], next_token_scale[t][i % 2]) : next_beta[i / 2];
        acc.of[t][i] = __fmaf_rn(__int2float_rn(isum[t][i]), w, acc.of[t][i]);
        isum[t][i] = 0;
      }
    }
    place = 0;
    if (++group_number < count) {
      load_next_scales();
    }
  };
  LaneSums<kTokenTiles> running;
  if constexpr (kSegments == 0) {
    running.start(0);
    load_next_scales();
  }

  unsigned stage_at = 0;                              // of the stage that is multiplied
  unsigned free_at = ring_bytes - shape.stage_bytes;  // of the one before
#pragma unroll 1
  for (unsigned number = 0; number < shape.stages; ++number) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();  // all copies of the stage have arrived, and nobody reads the one before any more
    if (number + kStages - 1 < shape.stages) {
      copy.copy_x(base + free_at, a, shape, first_token);
      copy.copy_weights(base + free_at);
    }
    ptx::cp_async_commit();
    const unsigned tiles = static_cast<unsigned>(a.tiles_along_k) - number * kStageTiles;
    if constexpr (kSegments > 0) {
      if (number < shape.whole_stages) {
        // Two tiles side by side: more products that do not wait for each other. Two groups of a tile are that already.
        constexpr unsigned kTogether = kSegments == 2 ? 1 : 2;
#pragma unroll
        for (unsigned tile = 0; tile < kStageTiles; tile += kTogether) {
          multiply_tiles.template operator()<kTogether, true>(stage_at, tile, 0);
        }
      } else {
#pragma unroll 1
        for (unsigned tile = 0; tile < min(tiles, unsigned{kStageTiles}); ++tile) {
          multiply_tiles.template operator()<1, false>(stage_at, tile, count - number * Copy::kGroups);
        }
      }
    } else {
#pragma unroll 1
      for (unsigned tile = 0; tile < min(tiles, unsigned{kStageTiles}); ++tile) {
#pragma unroll 1
        for (unsigned half = 0; half < 2; ++half) {
          uint2 codes;
          ptx::shared_load(base + stage_at + lane_weights + tile * kStripBytes + half * 8, codes);
          LaneInputs64<kTokenTiles> x;
#pragma unroll
          for (int t = 0; t < kTokenTiles; ++t) {
            ptx::ldmatrix_x4(x.x[t], base + stage_at + lane_x[t] + tile * kTileInputs + half * 64);
          }
#pragma unroll
          for (unsigned word = 0; word < 2; ++word) {
            x.multiply(running, word == 0 ? codes.x : codes.y, static_cast<int>(word));
            if ((shape.segment_mask >> (2 * half + word) & 1U) != 0) {
              end_segment(running);
            }
          }
        }
      }
    }
    free_at = stage_at;
    stage_at += shape.stage_bytes;
    stage_at = stage_at == ring_bytes ? 0 : stage_at;
  }

  // A copy of the code for each type, of which one runs.
  const auto store = [&]<typename Element>(const auto& convert) {
    auto* const y = static_cast<Element*>(a.out.y) + std::uint64_t{first_token} * out_features;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned row = strip * kStripRows + lane / 4 + i * 8;
      if (row < out_features) {
        const float bias = a.out.bias == nullptr ? -0.0F : a.out.bias[row];
#pragma unroll
        for (unsigned t = 0; t < kTokenTiles; ++t) {
#pragma unroll
          for (unsigned j = 0; j < 2; ++j) {
            const unsigned token = warp_token + t * 8 + lane % 4 * 2 + j;
            if (token < tokens) {
              y[std::uint64_t{token} * out_features + row] =
                  convert(__fadd_rn(__fmul_rn(acc.of[t][2 * i + j], token_scale[t][j]), bias));
            }
          }
        }
      }
    }
  };
  if (a.out.type == DataType::float32) {
    store.template operator()<float>([](float value) { return value; });
  } else if (a.out.type == DataType::bfloat16) {
    store.template operator()<std::uint16_t>([](float value) { return ptx::to_bfloat16(value); });
  } else {
    store.template operator()<std::uint16_t>([](float value) { return ptx::to_float16(value); });
  }
}

}  // namespace

void launch_decode_whole_groups(const DecodePlan& plan, const ProductArguments& arguments,
                                const Groups& groups, bool programmatic, Stream stream) {
  const int strips = strips_of(arguments.out.out_features);
  const std::int64_t batches = ceil_div(arguments.out.tokens, kMaxDecodeTokens);
  const std::int64_t blocks = ceil_div(strips, plan.row_warps) * batches;
  if (blocks > 2'147'483'647) {
    throw Error("cuda::product: " + std::to_string(arguments.out.tokens) + " tokens x " +
                std::to_string(arguments.out.out_features) + " outputs are too many blocks for decode");
  }
  const int tokens = std::min(arguments.out.tokens, kMaxDecodeTokens);
  const bool staged = staged_scales(groups);
  const StageBytes bytes = stage_bytes(plan, tokens, groups, groups.half);
  const int segments_of_tile = kTileInputs / groups.segment;
  const LaunchShape launch_shape = shape_of_warps(static_cast<int>(blocks), plan.row_warps, plan.k_warps,
                                                  static_cast<unsigned>(kStages * bytes.all()), programmatic);
  const WholeShape shape{
      .strips = static_cast<unsigned>(strips),
      .batches = static_cast<unsigned>(batches),
      .stages = static_cast<unsigned>(ceil_div(arguments.tiles_along_k, kStageTiles)),
      .whole_stages = static_cast<unsigned>(groups.segments / (kStageTiles * segments_of_tile)),
      .stage_bytes = static_cast<unsigned>(bytes.all()),
      .weight_begin = static_cast<unsigned>(bytes.x),
      .scale_begin = static_cast<unsigned>(bytes.x + bytes.weights),
      .token_scale_begin = static_cast<unsigned>(bytes.x + bytes.weights + bytes.scales),
      .row_block_bytes = static_cast<unsigned>(arguments.tiles_along_k) * kTileBytes,
      .scale_block_bytes = static_cast<unsigned>(groups.count * kTileRows * (groups.half ? 2 : 4)),
      .segment_mask = segment_mask(segments_of_tile),
      .groups = groups};
  const auto start = [&]<int kTokenTiles, int kSegments, bool kHalf, bool kTokenGroups>() {
    launch<decode_whole_groups_kernel<kTokenTiles, kSegments, kHalf, kTokenGroups>>(
        "decode_whole_groups", launch_shape, stream, arguments, shape, programmatic);
  };
  const auto start_segments = [&]<int kTokenTiles, int kSegments>() {
    for_scales(groups, [&]<bool kHalf, bool kTokenGroups>() {
      start.template operator()<kTokenTiles, kSegments, kHalf, kTokenGroups>();
    });
  };
  const auto start_tokens = [&]<int kTokenTiles>() {
    if (!staged) {
      start.template operator()<kTokenTiles, 0, false, false>();
    } else if (segments_of_tile == 1) {
      start_segments.template operator()<kTokenTiles, 1>();
    } else {
      start_segments.template operator()<kTokenTiles, 2>();
    }
  };
  tokens > 8 * plan.k_warps ? start_tokens.template operator()<2>() : start_tokens.template operator()<1>();
}

}  // namespace trit::cuda

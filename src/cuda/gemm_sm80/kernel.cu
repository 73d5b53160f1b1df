// SPDX-License-Identifier: MIT
//
// gemm_sm80: the product for many tokens with mma.sync, on every GPU from sm_80 on.
//
// A block computes R output rows x T tokens with 4 warps below each other, two blocks a multiprocessor, so
// that one multiplies while the other fills its ring or stores:
//
//   T = 64   R = 256   a warp 64 rows x 64 tokens   128 accumulators a thread
//   T = 32   R = 128   a warp 32 rows x 32 tokens   32
//
// k goes in stages of 128 inputs through a ring of 3 in shared memory, filled by cp.async: 48 KiB at most,
// since 8.6 and 8.9 have 100 for two blocks, and a fourth stage gains nothing. A stage holds
//
//   tokens    T rows of 128 bytes; the 16-byte unit u of row r lies at unit u ^ (r % 8), so that the 8 rows
//             of an ldmatrix are in different banks
//   weights   R / 64 tiles of frag64x128, copied as they are
//
// A stage is four steps of 32 inputs. What a step multiplies was read from shared memory in the step
// before. The last step of a stage waits for the next stage at a barrier, reads that stage's first
// operands, starts to refill its own (which no warp reads any more), and only then multiplies. So there is
// one barrier a stage, and each warp has a step's mma to issue behind it that wait for nothing.
//
// Rows and tokens outside of the matrix repeat the last one and are dropped; inputs past K meet zero weights.
// So the copies are the same in every block.
//
// Sums go through shared memory, each warp's through its own part, so that a lane stores 8 neighbours of a
// row of y at once.
//
// Few tiles: `splits` blocks share a tile's range of k. Each adds its int32 sums to a workspace in memory,
// atomically. The last one, found by a counter per tile, reads the total, writes y and restores the zeros.
// Integer sums are exact in any order. Splitting also allows more in_features than one int32 sum of 64 t q
// can hold.
// With group scales (T = 32): the sums of a group become acc = fma((float)isum, w, acc) in registers, at the step
// that ends it; k is not split, since the sum over the groups of a row has one order.
#include <type_traits>

#include "cuda/common/fragments.cuh"
#include "cuda/common/group_scales.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/gemm_sm80/stage.cuh"

namespace trit::cuda::sm80 {
namespace {

struct Shape {
  int row_blocks;
  int token_blocks;
  int tiles_per_split;
  Groups groups;
  unsigned segment_mask;
  std::int32_t* counters;  // [row_blocks * token_blocks], zero between launches; only where k is split
  std::int32_t* partial;   // [row_blocks * token_blocks][sums of a thread][128], zero between launches
};

template <int kTokens>
struct Sums {
  std::int32_t of[Tile<kTokens>::kStrips][Tile<kTokens>::kColumns][4];
};

// The x of one step.
template <int kTokens>
struct Columns {
  std::uint32_t pair[Tile<kTokens>::kColumns / 2][4];  // of 8 tokens each
  // Matrices of an ldmatrix.x4: tokens 0..7 and 8..15 of a pair of columns, inputs 0..15 and 16..31 of each.
  // One address serves all: 16 rows further is 2048 bytes, and two units further is an exclusive or with 32,
  // because a row starts at a multiple of 128.
  __device__ __forceinline__ void load(const std::uint8_t* stage, int first, int step) {
#pragma unroll
    for (int p = 0; p < Tile<kTokens>::kColumns / 2; ++p) {
      ptx::ldmatrix_x4(pair[p], stage + (first ^ (step * 32)) + p * 16 * kTileInputs);
    }
  }
};

// The weights of one stage, packed.
template <int kTokens>
struct Strips {
  uint4 of[Tile<kTokens>::kStrips];
  __device__ __forceinline__ void load(const std::uint8_t* lane_weights) {
#pragma unroll
    for (int s = 0; s < Tile<kTokens>::kStrips; ++s) {
      of[s] = *reinterpret_cast<const uint4*>(lane_weights + s * kStripBytes);
    }
  }
};

template <int kTokens>
__device__ __forceinline__ void multiply_step(Sums<kTokens>& sums, const Strips<kTokens>& weights, int step,
                                              const Columns<kTokens>& x) {
#pragma unroll
  for (int s = 0; s < Tile<kTokens>::kStrips; ++s) {
    std::uint32_t a[4];
    unpack(a, word_of(weights.of[s], step));
#pragma unroll
    for (int c = 0; c < Tile<kTokens>::kColumns; ++c) {
      ptx::mma_m16n8k32(sums.of[s][c], a, x.pair[c / 2][c % 2 * 2], x.pair[c / 2][c % 2 * 2 + 1]);
    }
  }
}

/// The sums over the groups of a thread's outputs. A lane has rows g and g + 8 of each strip, g = lane / 4, and
/// tokens 2 (lane % 4) and + 1 of each column.
template <int kTokens>
class GroupSums {
  using T = Tile<kTokens>;

 public:
  __device__ __forceinline__ GroupSums(const ProductArguments& a, const Groups& groups, int first_row,
                                       int first_token, int lane)
      : segments_left_(groups.segments) {
    const int last_block = ceil_div(a.out.out_features, kTileRows) - 1;
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
      const int row = first_row + s * kStripRows;  // beyond the matrix those of its last block, not stored
      scales_[s] = std::int64_t{min(row / kTileRows, last_block)} * groups.count * kTileRows +
                   row % kTileRows + lane / 4 * 2;
    }
#pragma unroll
    for (int c = 0; c < T::kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        tokens_[c][i] = min(first_token + c * 8 + lane % 4 * 2 + i, a.out.tokens - 1);
      }
    }
    load_scales(groups, 0);
  }

  /// After the last step of a segment: `sums` begin anew where it ends a group.
  __device__ __forceinline__ void end_segment(const ProductArguments& a, const Groups& groups,
                                              Sums<kTokens>& sums) {
    --segments_left_;
    // What a last tile holds beyond the inputs is zero and belongs to no group.
    if (segments_left_ < 0 || (++in_group_ < groups.per_group && segments_left_ > 0)) {
      return;
    }
    in_group_ = 0;
    uint2 pair[T::kStrips];
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
      pair[s] = next_[s];
    }
    load_scales(groups, min(g_ + 1, groups.count - 1));
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
      const float beta[2] = {
          groups.half ? ptx::from_float16(static_cast<std::uint16_t>(pair[s].x)) : __uint_as_float(pair[s].x),
          groups.half ? ptx::from_float16(static_cast<std::uint16_t>(pair[s].x >> 16U))
                      : __uint_as_float(pair[s].y)};
#pragma unroll
      for (int c = 0; c < T::kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float w = beta[i / 2];
          if (groups.token_groups) {
            w = __fmul_rn(w, a.out.token_scale[std::int64_t{tokens_[c][i % 2]} * groups.count + g_]);
          }
          std::int32_t& sum = sums.of[s][c][i];
          acc_[s][c][i] = __fmaf_rn(__int2float_rn(sum >> kCodeShift), w, acc_[s][c][i]);
          sum = 0;
        }
      }
    }
    ++g_;
  }

  /// The bits of acc take the place of the sums.
  __device__ __forceinline__ void move_to(Sums<kTokens>& sums) const {
#pragma unroll
    for (int i = 0; i < T::kSums; ++i) {
      sums.of[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4] =
          static_cast<std::int32_t>(__float_as_uint(acc_[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4]));
    }
  }

 private:
  /// As they are in memory: a conversion here would wait for them, in every group.
  __device__ __forceinline__ void load_scales(const Groups& groups, int g) {
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
      const std::int64_t at = scales_[s] + std::int64_t{g} * kTileRows;
      if (groups.half) {
        next_[s].x = ptx::global_load(static_cast<const std::uint16_t*>(groups.scale) + at);
      } else {
        next_[s] = *reinterpret_cast<const uint2*>(static_cast<const float*>(groups.scale) + at);
      }
    }
  }

  float acc_[T::kStrips][T::kColumns][4] = {};
  uint2 next_[T::kStrips] = {};  // scales of the next group: two float16 or two float32
  std::int64_t scales_[T::kStrips];
  int tokens_[T::kColumns][2];
  int segments_left_;
  int in_group_ = 0;
  int g_ = 0;
};

// Adds this block's sums to those of the tile's other ranges of k. True in the last block: it then has the
// total, and has left zeros in the workspace. `ticket` is one int of shared memory.
template <int kTokens>
__device__ __forceinline__ bool combine_splits(Sums<kTokens>& sums, std::int32_t* ticket, const Shape& shape,
                                               int tile, int splits) {
  using T = Tile<kTokens>;
  std::int32_t* partial = shape.partial + std::int64_t{tile} * (T::kSums * kThreads) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    atomicAdd(partial + i * kThreads, sums.of[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *ticket = atomicAdd(&shape.counters[tile], 1);
  }
  __syncthreads();
  const bool last = *ticket == splits - 1;
  __syncthreads();  // the ticket lies where the sums will
  if (!last) {
    return false;
  }
  __threadfence();
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    // L1 may hold what was there before the atomics.
    sums.of[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4] = __ldcg(partial + i * kThreads);
    partial[i * kThreads] = 0;
  }
  if (threadIdx.x == 0) {
    shape.counters[tile] = 0;
  }
  return true;
}

// Stores a warp's outputs: rows first_row .. of tokens first_token .. A lane has 8 neighbouring rows, the
// same for all tokens. The loop over tokens is not unrolled: cold straight-line code is bound by fetching it.
template <int kTokens, bool kGrouped>
__device__ __forceinline__ void store_warp(const Output& out, const Sums<kTokens>& sums,
                                           std::int32_t* warp_sums, int first_row, int first_token,
                                           int lane) {
  using T = Tile<kTokens>;
  constexpr int kLanesPerToken = T::kWarpRows / 8;
  constexpr int kTokensAtOnce = 32 / kLanesPerToken;
  const int row = first_row + lane % kLanesPerToken * 8;
  const bool vector = out.out_features % 8 == 0 && reinterpret_cast<std::uintptr_t>(out.y) % 16 == 0;
  float beta[8];
  float bias[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int of = min(row + i, out.out_features - 1);
    beta[i] = kGrouped ? 1.0F : out.weight_scale[out.scale_per_row ? of : 0];
    bias[i] = out.bias == nullptr ? -0.0F : out.bias[of];
  }
#pragma unroll
  for (int part = 0; part < T::kColumns / T::kStoreColumns; ++part) {
    __syncwarp();
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
#pragma unroll
      for (int c = 0; c < T::kStoreColumns; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          warp_sums[(c * 8 + lane % 4 * 2 + i % 2) * T::kSumStride + s * kStripRows + lane / 4 +
                    8 * (i / 2)] = sums.of[s][part * T::kStoreColumns + c][i];
        }
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int t = lane / kLanesPerToken; t < T::kStoreColumns * 8; t += kTokensAtOnce) {
      const int token = first_token + part * T::kStoreColumns * 8 + t;
      if (token >= out.tokens || row >= out.out_features) {
        continue;
      }
      const float token_scale = kGrouped && out.token_scale == nullptr ? 1.0F : out.token_scale[token];
      const auto* from =
          reinterpret_cast<const int4*>(warp_sums + t * T::kSumStride + lane % kLanesPerToken * 8);
      const int4 low = from[0];
      const int4 high = from[1];
      const std::int32_t sum[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      float value[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        value[i] = kGrouped ? __fadd_rn(__fmul_rn(__int_as_float(sum[i]), token_scale), bias[i])
                            : output_value(sum[i], token_scale, beta[i], bias[i]);
      }
      store_outputs(out, token, row, value, vector);
    }
  }
}

template <int kTokens, bool kGrouped>
__global__ __launch_bounds__(kThreads, kBlocks) void gemm_sm80_kernel(const ProductArguments a,
                                                                      const Shape shape) {
  using T = Tile<kTokens>;
  std::uint8_t* stages = dynamic_shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  // Blocks that run together share tokens and weights: groups of 8 token blocks by all row blocks, token
  // blocks fastest.
  const int tile_index = static_cast<int>(blockIdx.x);
  const int first_of_group = tile_index / (kTokenGroup * shape.row_blocks) * kTokenGroup;
  const int in_group = tile_index - first_of_group * shape.row_blocks;
  const int group = min(kTokenGroup, shape.token_blocks - first_of_group);
  const int row_block = in_group / group;
  const int first_token = (first_of_group + in_group - row_block * group) * kTokens;
  const int begin = static_cast<int>(blockIdx.y) * shape.tiles_per_split;
  const int end = min(begin + shape.tiles_per_split, a.tiles_along_k);
  Copies<kTokens> copies(a, row_block, first_token, begin);

  ptx::wait_for_predecessor();
#pragma unroll 1
  for (int s = 0; s < kStages; ++s) {
    if (begin + s < end) {
      copies.start(stages + s * T::kStageBytes);
    }
    ptx::cp_async_commit();
  }
  const int first_x = swizzled(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const int first_weights = T::kTokenStageBytes + warp * T::kStrips * kStripBytes + lane * 16;
  Sums<kTokens> sums = {};
  const int first_row = row_block * T::kRows + warp * T::kWarpRows;
  [[maybe_unused]] std::conditional_t<kGrouped, GroupSums<kTokens>, int> group_sums = [&] {
    if constexpr (kGrouped) {
      return GroupSums<kTokens>(a, shape.groups, first_row, first_token, lane);
    } else {
      return 0;
    }
  }();
  Strips<kTokens> weights[2];
  Columns<kTokens> x[2];
  ptx::cp_async_wait<kStages - 1>();
  __syncthreads();
  weights[0].load(stages + first_weights);
  x[0].load(stages, first_x, 0);
  std::uint8_t* stage = stages;
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    std::uint8_t* next = stage == stages + (kStages - 1) * T::kStageBytes ? stages : stage + T::kStageBytes;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) {
        x[(step + 1) % 2].load(stage, first_x, step + 1);
      } else {
        ptx::cp_async_wait<kStages - 2>();
        __syncthreads();  // all parts of the next stage are there, and no warp reads this one any more
        weights[1].load(next + first_weights);
        x[0].load(next, first_x, 0);
        if (tile + kStages < end) {
          copies.start(stage);
        }
        ptx::cp_async_commit();
      }
      multiply_step(sums, weights[0], step, x[step % 2]);
      if constexpr (kGrouped) {
        if (step == kSteps - 1 || (shape.segment_mask >> step & 1U) != 0) {
          group_sums.end_segment(a, shape.groups, sums);
        }
      }
    }
    weights[0] = weights[1];
    stage = next;
  }
  ptx::let_successor_start();
  if constexpr (kGrouped) {
    group_sums.move_to(sums);
  } else {
#pragma unroll
    for (int i = 0; i < T::kSums; ++i) {
      sums.of[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4] >>= kCodeShift;
    }
  }
  __syncthreads();
  auto* tile_sums = reinterpret_cast<std::int32_t*>(stages);
  if (!kGrouped && gridDim.y > 1 &&
      !combine_splits(sums, tile_sums, shape, tile_index, static_cast<int>(gridDim.y))) {
    return;
  }
  Output out = a.out;
  if (kGrouped && shape.groups.token_groups) {
    out.token_scale = nullptr;  // in the sums already
  }
  store_warp<kTokens, kGrouped>(out, sums, tile_sums + warp * T::kWarpSums, first_row, first_token, lane);
}

template <int kTokens, bool kGrouped = false>
void launch_tile(const Launch& how, const ProductArguments& arguments, const Shape& shape, bool programmatic,
                 Stream stream) {
  launch<gemm_sm80_kernel<kTokens, kGrouped>>(
      "gemm_sm80",
      {.grid = {static_cast<unsigned>(how.row_blocks) * static_cast<unsigned>(how.token_blocks),
                static_cast<unsigned>(how.splits)},
       .block = {kThreads},
       .shared_bytes = Tile<kTokens>::kSharedBytes,
       .programmatic = programmatic},
      stream, arguments, shape);
}

std::size_t counter_bytes(const Launch& how) {
  return round_up(static_cast<std::size_t>(how.row_blocks) * static_cast<std::size_t>(how.token_blocks) * 4,
                  std::size_t{16});
}

}  // namespace

std::size_t workspace_bytes_of(const Launch& how) {
  if (how.splits == 1) {
    return 0;
  }
  return counter_bytes(how) + static_cast<std::size_t>(how.row_blocks) *
                                  static_cast<std::size_t>(how.token_blocks) *
                                  static_cast<std::size_t>(how.tile_tokens) *
                                  static_cast<std::size_t>(rows_of_tile(how.tile_tokens)) * 4;
}

void launch_gemm(const Launch& how, const ProductArguments& arguments, const Groups& groups, void* workspace,
                 bool programmatic, Stream stream) {
  Shape shape{.row_blocks = how.row_blocks,
              .token_blocks = how.token_blocks,
              .tiles_per_split = how.tiles_per_split,
              .groups = groups,
              .segment_mask = groups.count > 0 ? segment_mask(kTileInputs / groups.segment) : 0,
              .counters = nullptr,
              .partial = nullptr};
  if (how.splits > 1) {
    shape.counters = static_cast<std::int32_t*>(workspace);
    shape.partial = shape.counters + counter_bytes(how) / 4;
  }
  if (groups.count > 0) {
    return launch_tile<32, true>(how, arguments, shape, programmatic, stream);
  }
  if (how.tile_tokens == 32) {
    return launch_tile<32>(how, arguments, shape, programmatic, stream);
  }
  launch_tile<64>(how, arguments, shape, programmatic, stream);
}

}  // namespace trit::cuda::sm80

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
// A stage is four steps of 32 inputs. What a step multiplies was read from shared memory in the step before:
// the last step of a stage waits for the next one, meets the other warps, reads the next stage's first
// operands, starts the refill of its own place (which nobody reads any more), and only then multiplies. So
// there is one barrier a stage, with a step's mma of each warp behind it that wait for nothing.
//
// Rows and tokens outside of the matrix repeat the last one and are dropped; inputs past K meet zero weights.
// So no copy depends on where the block is.
//
// Sums go through shared memory, each warp's through its own part, so that a lane stores 8 neighbours of a
// row of y at once.
//
// Few tiles: `splits` blocks share a tile's range of k. Each adds its int32 sums to a workspace in memory,
// atomically; the last to come, by a counter per tile, reads the total, writes y and puts zeros back. Integer
// sums are exact in any order. The same splitting takes in_features beyond what one int32 sum of 64 t q
// holds.
#include <algorithm>

#include "cuda/common/fragments.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/common/ptx.cuh"
#include "cuda/product.cuh"

namespace trit::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 3;
constexpr int kBlocks = 2;                // per multiprocessor
constexpr int kUnits = kTileInputs / 16;  // 16-byte units of a token's row in a stage
constexpr int kSteps = kTileInputs / 32;  // of mma in a stage
constexpr int kMaxSplits = 32;
constexpr int kTokenGroup = 8;  // token blocks that run together with a row block
constexpr int kCopyRows = kThreads / kUnits;
constexpr int kCopyTiles = kThreads / (kTileBytes / 16);
static_assert(kCopyRows % 8 == 0, "the swizzle of all rows that a thread copies is the same");

constexpr int rows_of_tile(int tokens) { return 4 * tokens; }

template <int kTokens>
struct Tile {
  static constexpr int kRows = rows_of_tile(kTokens);
  static constexpr int kWarpRows = kRows / kWarps;
  static constexpr int kStrips = kWarpRows / kStripRows;  // per warp
  static constexpr int kColumns = kTokens / 8;            // tiles of 8 tokens per warp
  static constexpr int kTokenStageBytes = kTokens * kTileInputs;
  static constexpr int kWeightStageBytes = kRows / kTileRows * kTileBytes;
  static constexpr int kStageBytes = kTokenStageBytes + kWeightStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kSums = kStrips * kColumns * 4;  // per thread
  // The end: columns whose sums a warp has in shared memory at a time, and ints from token to token: the 4
  // tokens x 8 rows of a store are in 32 banks.
  static constexpr int kStoreColumns = 4;
  static constexpr int kSumStride = kWarpRows + 4;
  static constexpr int kWarpSums = kStoreColumns * 8 * kSumStride;
  static_assert(kColumns % 2 == 0, "an ldmatrix.x4 reads 16 tokens");
  static_assert(kWarps * kWarpSums * 4 <= kSharedBytes, "the sums fit where the stages were");
};

struct Shape {
  int row_blocks;
  int token_blocks;
  int tiles_per_split;
  std::int32_t* counters;  // [row_blocks * token_blocks], zero between launches; only where k is split
  std::int32_t* partial;   // [row_blocks * token_blocks][sums of a thread][128], zero between launches
};

__device__ __forceinline__ int swizzled(int row, int unit) {
  return row * kTileInputs + (unit ^ (row % 8)) * 16;
}

// What a thread copies in every stage: unit `thread % 8` of rows thread / 8, + 16, ... of the tokens, and one
// unit of every other tile of weights.
template <int kTokens>
class Copies {
 public:
  __device__ __forceinline__ Copies(const ProductArguments& a, int row_block, int first_token, int tile)
      : q_(a.q + std::int64_t{first_token} * a.row_bytes),
        k_(tile * kTileInputs + static_cast<int>(threadIdx.x) % kUnits * 16),
        last_k_(a.row_bytes - 16) {
    const int thread = static_cast<int>(threadIdx.x);
    const int last_n = ceil_div(a.out.out_features, kTileRows) - 1;
#pragma unroll
    for (int i = 0; i < kWeightUnits; ++i) {
      const int n =
          row_block * (Tile<kTokens>::kRows / kTileRows) + thread / (kTileBytes / 16) + i * kCopyTiles;
      weights_[i] =
          a.weights + tile_offset(min(n, last_n), tile, a.tiles_along_k) + thread % (kTileBytes / 16) * 16;
    }
#pragma unroll
    for (int i = 0; i < kTokenUnits; ++i) {
      // 127 rows of 2^24 bytes and one more row are 2^31 - 1 at most.
      row_[i] = min(thread / kUnits + i * kCopyRows, a.out.tokens - 1 - first_token) * a.row_bytes;
    }
  }

  // Starts the copies of the next tile along k into `stage`.
  __device__ __forceinline__ void start(std::uint8_t* stage) {
    const int thread = static_cast<int>(threadIdx.x);
    std::uint8_t* to = stage + swizzled(thread / kUnits, thread % kUnits);
    const std::int8_t* from = q_ + min(k_, last_k_);
#pragma unroll
    for (int i = 0; i < kTokenUnits; ++i) {
      ptx::cp_async_16(to + i * kCopyRows * kTileInputs, from + row_[i]);
    }
    to = stage + Tile<kTokens>::kTokenStageBytes + thread * 16;
#pragma unroll
    for (int i = 0; i < kWeightUnits; ++i) {
      ptx::cp_async_16(to + i * kThreads * 16, weights_[i]);
      weights_[i] += kTileBytes;
    }
    k_ += kTileInputs;
  }

 private:
  static constexpr int kTokenUnits = kTokens / kCopyRows;
  static constexpr int kWeightUnits = Tile<kTokens>::kWeightStageBytes / (kThreads * 16);
  static_assert(kTokenUnits > 0 && kWeightUnits > 0);
  const std::int8_t* q_;
  int k_, last_k_;
  int row_[kTokenUnits];
  const std::uint8_t* weights_[kWeightUnits];
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
  __device__ __forceinline__ std::uint32_t word(int s, int i) const {  // i is known at compile time
    return i == 0 ? of[s].x : (i == 1 ? of[s].y : (i == 2 ? of[s].z : of[s].w));
  }
};

template <int kTokens>
__device__ __forceinline__ void multiply_step(Sums<kTokens>& sums, const Strips<kTokens>& weights, int step,
                                              const Columns<kTokens>& x) {
#pragma unroll
  for (int s = 0; s < Tile<kTokens>::kStrips; ++s) {
    std::uint32_t a[4];
    unpack(a, weights.word(s, step));
#pragma unroll
    for (int c = 0; c < Tile<kTokens>::kColumns; ++c) {
      ptx::mma_m16n8k32(sums.of[s][c], a, x.pair[c / 2][c % 2 * 2], x.pair[c / 2][c % 2 * 2 + 1]);
    }
  }
}

// Adds this block's sums to those of the tile's other ranges of k. True in the block that comes last: it then
// has the total, and has left zeros in the workspace. `ticket` is one int of shared memory.
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
template <int kTokens>
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
    beta[i] = out.scale[out.scale_per_row ? of : 0];
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
      const float token_scale = out.row_scale[token];
      const auto* from =
          reinterpret_cast<const int4*>(warp_sums + t * T::kSumStride + lane % kLanesPerToken * 8);
      const int4 low = from[0];
      const int4 high = from[1];
      const std::int32_t sum[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      float value[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        value[i] = output_value(sum[i], token_scale, beta[i], bias[i]);
      }
      store_outputs(out, token, row, value, vector);
    }
  }
}

template <int kTokens>
__global__ __launch_bounds__(kThreads, kBlocks) void gemm_sm80_kernel(const ProductArguments a,
                                                                      const Shape shape) {
  using T = Tile<kTokens>;
  std::uint8_t* stages = dynamic_shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  // Blocks that run together share tokens and weights: groups of 8 token blocks by all row blocks, tokens
  // first.
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
        __syncthreads();  // everybody's part of the next stage is there, and nobody reads this one any more
        weights[1].load(next + first_weights);
        x[0].load(next, first_x, 0);
        if (tile + kStages < end) {
          copies.start(stage);
        }
        ptx::cp_async_commit();
      }
      multiply_step(sums, weights[0], step, x[step % 2]);
    }
    weights[0] = weights[1];
    stage = next;
  }
  ptx::let_successor_start();
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    sums.of[i / (4 * T::kColumns)][i / 4 % T::kColumns][i % 4] >>= kCodeShift;
  }
  __syncthreads();
  auto* tile_sums = reinterpret_cast<std::int32_t*>(stages);
  if (gridDim.y > 1 && !combine_splits(sums, tile_sums, shape, tile_index, static_cast<int>(gridDim.y))) {
    return;
  }
  store_warp(a.out, sums, tile_sums + warp * T::kWarpSums, row_block * T::kRows + warp * T::kWarpRows,
             first_token, lane);
}

template <int kTokens>
void launch_tile(const GemmPlan& plan, const ProductArguments& arguments, const Shape& shape,
                 bool programmatic, Stream stream) {
  launch<gemm_sm80_kernel<kTokens>>(
      "gemm_sm80",
      {.grid = {static_cast<unsigned>(plan.row_blocks) * static_cast<unsigned>(plan.token_blocks),
                static_cast<unsigned>(plan.splits)},
       .block = {kThreads},
       .shared_bytes = Tile<kTokens>::kSharedBytes,
       .programmatic = programmatic},
      stream, arguments, shape);
}

std::size_t counter_bytes(const GemmPlan& plan) {
  return round_up(static_cast<std::size_t>(plan.row_blocks) * static_cast<std::size_t>(plan.token_blocks) * 4,
                  std::size_t{16});
}

}  // namespace

GemmPlan plan_gemm_sm80(const Device& device, std::int64_t tokens, std::int64_t out_features,
                        std::int64_t in_features, int tile_tokens) {
  const std::int64_t row_blocks = ceil_div<std::int64_t>(out_features, rows_of_tile(tile_tokens));
  const std::int64_t token_blocks = ceil_div<std::int64_t>(tokens, tile_tokens);
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, kTileInputs));
  if (row_blocks * token_blocks > 2'147'483'647) {
    throw Error("cuda::product: " + std::to_string(tokens) + " tokens x " + std::to_string(out_features) +
                " outputs are " + std::to_string(row_blocks * token_blocks) +
                " tiles, wanted at most 2147483647");
  }
  // Split k where that shortens the last wave. A block costs about 6 stages beside its own: filling the ring
  // and storing; adding up parts costs about as much again. `needed`: one int32 sum holds no more.
  const std::int64_t blocks = row_blocks * token_blocks;
  const std::int64_t at_once = std::int64_t{device.multiprocessors} * kBlocks;
  const int needed = ceil_div(k_tiles, kMaxTilesPerSum);
  int splits = needed;
  std::int64_t best = 0;
  for (int s = needed; s <= std::max(needed, std::min(kMaxSplits, k_tiles / 4)); ++s) {
    const std::int64_t cost = ceil_div(blocks * s, at_once) * (ceil_div(k_tiles, s) + (s > 1 ? 12 : 6));
    if (s == needed || cost < best) {
      best = cost;
      splits = s;
    }
  }
  GemmPlan plan{};
  plan.tile_tokens = tile_tokens;
  plan.row_blocks = static_cast<int>(row_blocks);
  plan.token_blocks = static_cast<int>(token_blocks);
  plan.tiles_per_split = ceil_div(k_tiles, splits);
  plan.splits = ceil_div(k_tiles, plan.tiles_per_split);  // none is empty
  return plan;
}

std::size_t gemm_sm80_workspace_bytes(const GemmPlan& plan) {
  if (plan.splits == 1) {
    return 0;
  }
  return counter_bytes(plan) + static_cast<std::size_t>(plan.row_blocks) *
                                   static_cast<std::size_t>(plan.token_blocks) *
                                   static_cast<std::size_t>(plan.tile_tokens) *
                                   static_cast<std::size_t>(rows_of_tile(plan.tile_tokens)) * 4;
}

void launch_gemm_sm80(const GemmPlan& plan, const ProductArguments& arguments, void* workspace,
                      bool programmatic, Stream stream) {
  Shape shape{.row_blocks = plan.row_blocks,
              .token_blocks = plan.token_blocks,
              .tiles_per_split = plan.tiles_per_split,
              .counters = nullptr,
              .partial = nullptr};
  if (plan.splits > 1) {
    shape.counters = static_cast<std::int32_t*>(workspace);
    shape.partial = shape.counters + counter_bytes(plan) / 4;
  }
  if (plan.tile_tokens == 32) {
    return launch_tile<32>(plan, arguments, shape, programmatic, stream);
  }
  launch_tile<64>(plan, arguments, shape, programmatic, stream);
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// gemm_sm80: the product for many tokens with mma.sync, on every GPU from sm_80 on.
//
// A block computes 128 output rows x T tokens with 8 warps of 256 threads:
//
//   T = 128   2 x 4 warps of 64 rows x 32 tokens   64 accumulators a thread
//   T = 64    4 x 2 warps of 32 rows x 32 tokens   32
//   T = 32    4 x 2 warps of 32 rows x 16 tokens   16
//
// k goes in stages of 128 inputs through a ring of 4 in shared memory, filled by cp.async three stages ahead.
// A stage holds
//
//   weights   2 tiles of frag64x128, 4 KiB, copied as they are
//   tokens    T rows of 128 bytes; the 16-byte unit u of row r lies at unit u ^ (r % 8), so that the 8 rows
//             of an ldmatrix are in different banks
//
// Per stage and warp of 64 x 32: 8 loads of weights, 8 ldmatrix.x4, 16 words to unpack (4 ANDs, 3 shifts),
// 64 mma.
//
// Rows and tokens outside of the matrix are zeros. Sums go through shared memory, so that stores are
// contiguous along a row of y.
//
// Few tiles: `splits` blocks share a tile's range of k. Each adds its int32 sums to a workspace in memory,
// atomically; the last to come, by a counter per tile, reads the total, writes y and puts zeros back. Integer
// sums are exact in any order. The same splitting takes in_features beyond what one int32 sum of 64 t q
// holds.
#include <algorithm>

#include "cuda/fragments.cuh"
#include "cuda/launch.cuh"
#include "cuda/product.cuh"
#include "cuda/ptx.cuh"

namespace trit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 128;
constexpr int kStages = 4;
constexpr int kUnits = kTileInputs / 16;  // 16-byte units of a token's row in a stage
constexpr int kWeightStageBytes = kRows / kTileRows * kTileBytes;
constexpr int kSumStride = kRows + 4;  // ints per token: the 4 tokens x 8 rows of a store are in 32 banks
static_assert(kWeightStageBytes == kThreads * 16, "a thread copies one unit of weights per stage");

template <int kTokens>
struct Tile {
  static constexpr int kRowWarps = kTokens == 128 ? 2 : 4;
  static constexpr int kTokenWarps = 8 / kRowWarps;
  static constexpr int kStrips = kRows / kRowWarps / kStripRows;  // per warp
  static constexpr int kColumns = kTokens / kTokenWarps / 8;      // tiles of 8 tokens per warp
  static constexpr int kTokenStageBytes = kTokens * kTileInputs;
  static constexpr int kStageBytes = kTokenStageBytes + kWeightStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(kColumns % 2 == 0, "an ldmatrix.x4 reads 16 tokens");
  static_assert(kTokens * kSumStride * 4 + 16 <= kSharedBytes, "the sums fit where the stages were");
};

struct Shape {
  int row_blocks;
  int tiles_per_split;
  std::int32_t* counters;  // [row_blocks * token_blocks], zero between launches; only where k is split
  std::int32_t* partial;   // [row_blocks * token_blocks][T][128], zero between launches
};

__device__ __forceinline__ int swizzled(int row, int unit) {
  return row * kTileInputs + (unit ^ (row % 8)) * 16;
}

// What a thread copies in every stage: one unit of weights, and unit `unit` of rows row, row + 32, ... of the
// tokens.
struct Copies {
  const std::uint8_t* weights;  // this thread's unit in the first tile along k
  unsigned weight_bytes;        // 16, or 0 past the matrix
  const std::int8_t* q;         // the first token
  int tokens;                   // that exist in this block, from the first
};

__device__ __forceinline__ Copies plan_copies(const ProductArguments& a, int row_block, int first_token) {
  const int thread = static_cast<int>(threadIdx.x);
  const int n = row_block * (kRows / kTileRows) + thread / (kTileBytes / 16);
  const bool exists = n < ceil_div(a.out.out_features, kTileRows);
  return {.weights =
              a.weights + tile_offset(exists ? n : 0, 0, a.tiles_along_k) + thread % (kTileBytes / 16) * 16,
          .weight_bytes = exists ? 16U : 0U,
          .q = a.q + std::int64_t{first_token} * a.row_bytes,
          .tokens = a.out.tokens - first_token};
}

// Starts the copies of the tile `tile` along k into `stage`.
template <int kTokens>
__device__ __forceinline__ void load_stage(std::uint8_t* stage, const Copies& c, int row_bytes, int tile) {
  constexpr int kRowStep = kThreads / kUnits;
  static_assert(kRowStep % 8 == 0, "the swizzle of a thread's rows is the same");
  ptx::cp_async_16(stage + Tile<kTokens>::kTokenStageBytes + threadIdx.x * 16,
                   c.weights + std::int64_t{tile} * kTileBytes, c.weight_bytes);
  const int first_row = static_cast<int>(threadIdx.x) / kUnits;
  const int unit = static_cast<int>(threadIdx.x) % kUnits;
  const int k = tile * kTileInputs + unit * 16;
  std::uint8_t* to = stage + swizzled(first_row, unit);
#pragma unroll
  for (int i = 0; i < kTokens / kRowStep; ++i) {
    const int row = first_row + i * kRowStep;
    const bool inside = row < c.tokens && k < row_bytes;
    // 127 rows of 2^24 bytes and one more row are 2^31 - 1 at most.
    ptx::cp_async_16(to + i * kRowStep * kTileInputs, c.q + (inside ? row * row_bytes + k : 0),
                     inside ? 16 : 0);
  }
}

template <int kTokens>
struct Sums {
  std::int32_t of[Tile<kTokens>::kStrips][Tile<kTokens>::kColumns][4];
};

// One stage: 4 steps of 32 inputs.
template <int kTokens>
__device__ __forceinline__ void multiply_stage(Sums<kTokens>& sums, const std::uint8_t* stage, int row_warp,
                                               int token_warp, int lane) {
  using T = Tile<kTokens>;
  // Matrices of an ldmatrix.x4: tokens 0..7 and 8..15 of a pair of columns, inputs 0..15 and 16..31 of each.
  // One address serves all: 16 rows further is 2048 bytes, and two units further is an exclusive or with 32,
  // because a row starts at a multiple of 128.
  const int first = swizzled((token_warp * T::kColumns + lane / 16) * 8 + lane % 8, lane / 8 % 2);
  // Two halves of 64 inputs, each with half of a lane's 16 bytes: four words of four strips are too many
  // beside 64 sums.
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    uint2 weights[T::kStrips];
#pragma unroll
    for (int s = 0; s < T::kStrips; ++s) {
      const int strip = row_warp * T::kStrips + s;
      weights[s] = *reinterpret_cast<const uint2*>(stage + T::kTokenStageBytes + strip * kStripBytes +
                                                   lane * 16 + half * 8);
    }
#pragma unroll
    for (int word = 0; word < 2; ++word) {
      std::uint32_t x[T::kColumns / 2][4];
#pragma unroll
      for (int pair = 0; pair < T::kColumns / 2; ++pair) {
        ptx::ldmatrix_x4(x[pair], stage + (first ^ (half * 64 + word * 32)) + pair * 16 * kTileInputs);
      }
#pragma unroll
      for (int s = 0; s < T::kStrips; ++s) {
        std::uint32_t a[4];
        unpack(a, word == 0 ? weights[s].x : weights[s].y);
#pragma unroll
        for (int c = 0; c < T::kColumns; ++c) {
          ptx::mma_m16n8k32(sums.of[s][c], a, x[c / 2][c % 2 * 2], x[c / 2][c % 2 * 2 + 1]);
        }
      }
    }
  }
}

// Puts a warp's sums, shifted to sums of t q, where the block's lie: tile_sums[token * kSumStride + row].
template <int kTokens>
__device__ __forceinline__ void stage_sums(const Sums<kTokens>& sums, std::int32_t* tile_sums, int row_warp,
                                           int token_warp, int lane) {
  using T = Tile<kTokens>;
#pragma unroll
  for (int s = 0; s < T::kStrips; ++s) {
#pragma unroll
    for (int c = 0; c < T::kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = (token_warp * T::kColumns + c) * 8 + lane % 4 * 2 + i % 2;
        const int row = (row_warp * T::kStrips + s) * kStripRows + lane / 4 + 8 * (i / 2);
        tile_sums[token * kSumStride + row] = sums.of[s][c][i] >> kCodeShift;
      }
    }
  }
}

// Adds this block's sums to those of the tile's other ranges of k. True in the block that comes last: it then
// has the total in tile_sums, and has left zeros in the workspace. `ticket` is one int of shared memory.
template <int kTokens>
__device__ __forceinline__ bool combine_splits(std::int32_t* tile_sums, std::int32_t* ticket,
                                               const Shape& shape, int tile, int splits) {
  std::int32_t* partial = shape.partial + std::int64_t{tile} * (kTokens * kRows);
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kRows; i += kThreads) {
    atomicAdd(&partial[i], tile_sums[i / kRows * kSumStride + i % kRows]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *ticket = atomicAdd(&shape.counters[tile], 1);
  }
  __syncthreads();
  if (*ticket != splits - 1) {
    return false;
  }
  __threadfence();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kRows; i += kThreads) {
    tile_sums[i / kRows * kSumStride + i % kRows] =
        __ldcg(&partial[i]);  // L1 may hold what was there before the atomics
    partial[i] = 0;
  }
  if (threadIdx.x == 0) {
    shape.counters[tile] = 0;
  }
  return true;
}

template <int kTokens>
__global__ __launch_bounds__(kThreads, 2) void gemm_sm80_kernel(const ProductArguments a, const Shape shape) {
  using T = Tile<kTokens>;
  std::uint8_t* stages = dynamic_shared();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int row_warp = thread / 32 % T::kRowWarps;
  const int token_warp = thread / 32 / T::kRowWarps;
  // Blocks that run together share tokens: a tile of x comes from memory once, the packed weights are small
  // and stay in L2.
  const int tile_index = static_cast<int>(blockIdx.x);
  const int token_block = tile_index / shape.row_blocks;
  const int row_block = tile_index - token_block * shape.row_blocks;
  const int first_token = token_block * kTokens;
  const int begin = static_cast<int>(blockIdx.y) * shape.tiles_per_split;
  const int end = min(begin + shape.tiles_per_split, a.tiles_along_k);
  const Copies copies = plan_copies(a, row_block, first_token);

  ptx::wait_for_predecessor();
#pragma unroll 1
  for (int s = 0; s < kStages - 1; ++s) {
    if (begin + s < end) {
      load_stage<kTokens>(stages + s * T::kStageBytes, copies, a.row_bytes, begin + s);
    }
    ptx::cp_async_commit();
  }
  Sums<kTokens> sums = {};
  int slot = 0;
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();  // everybody's part of this stage is there, and nobody reads the one before any more
    if (tile + kStages - 1 < end) {
      const int refill = slot == 0 ? kStages - 1 : slot - 1;
      load_stage<kTokens>(stages + refill * T::kStageBytes, copies, a.row_bytes, tile + kStages - 1);
    }
    ptx::cp_async_commit();
    multiply_stage<kTokens>(sums, stages + slot * T::kStageBytes, row_warp, token_warp, lane);
    slot = slot == kStages - 1 ? 0 : slot + 1;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  ptx::let_successor_start();

  auto* tile_sums = reinterpret_cast<std::int32_t*>(stages);
  stage_sums<kTokens>(sums, tile_sums, row_warp, token_warp, lane);
  __syncthreads();
  if (gridDim.y > 1) {
    std::int32_t* ticket = tile_sums + kTokens * kSumStride;
    if (!combine_splits<kTokens>(tile_sums, ticket, shape, tile_index, static_cast<int>(gridDim.y))) {
      return;
    }
    __syncthreads();
  }
  store_tile(a.out, tile_sums, kSumStride, first_token, min(kTokens, a.out.tokens - first_token),
             row_block * kRows, kRows);
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
  const std::int64_t row_blocks = ceil_div<std::int64_t>(out_features, kRows);
  const std::int64_t token_blocks = ceil_div<std::int64_t>(tokens, tile_tokens);
  const int k_tiles = static_cast<int>(ceil_div<std::int64_t>(in_features, kTileInputs));
  if (row_blocks * token_blocks > 2'147'483'647) {
    throw Error("cuda::product: " + std::to_string(tokens) + " tokens x " + std::to_string(out_features) +
                " outputs are " + std::to_string(row_blocks * token_blocks) +
                " tiles, wanted at most 2147483647");
  }
  // Split k until the blocks fill the device, but leave each 8 stages, or filling the ring costs more than it
  // brings.
  const std::int64_t blocks = row_blocks * token_blocks;
  const int wanted = static_cast<int>(std::max<std::int64_t>(1, device.multiprocessors / blocks));
  const int useful = std::max(1, k_tiles / 8);
  const int needed = ceil_div(k_tiles, kMaxTilesPerSum);
  GemmPlan plan{};
  plan.tile_tokens = tile_tokens;
  plan.row_blocks = static_cast<int>(row_blocks);
  plan.token_blocks = static_cast<int>(token_blocks);
  plan.tiles_per_split = ceil_div(k_tiles, std::max(needed, std::min(wanted, useful)));
  plan.splits = ceil_div(k_tiles, plan.tiles_per_split);  // none is empty
  return plan;
}

std::size_t gemm_sm80_workspace_bytes(const GemmPlan& plan) {
  if (plan.splits == 1) {
    return 0;
  }
  return counter_bytes(plan) + static_cast<std::size_t>(plan.row_blocks) *
                                   static_cast<std::size_t>(plan.token_blocks) *
                                   static_cast<std::size_t>(plan.tile_tokens) * kRows * 4;
}

void launch_gemm_sm80(const GemmPlan& plan, const ProductArguments& arguments, void* workspace,
                      bool programmatic, Stream stream) {
  Shape shape{.row_blocks = plan.row_blocks,
              .tiles_per_split = plan.tiles_per_split,
              .counters = nullptr,
              .partial = nullptr};
  if (plan.splits > 1) {
    shape.counters = static_cast<std::int32_t*>(workspace);
    shape.partial = shape.counters + counter_bytes(plan) / 4;
  }
  switch (plan.tile_tokens) {
    case 32:
      return launch_tile<32>(plan, arguments, shape, programmatic, stream);
    case 64:
      return launch_tile<64>(plan, arguments, shape, programmatic, stream);
    default:
      return launch_tile<128>(plan, arguments, shape, programmatic, stream);
  }
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// A stage of gemm_sm80's ring in shared memory (kernel.cu has the picture), and the copies that fill it.
#pragma once

#include "cuda/common/ptx.cuh"
#include "cuda/gemm_sm80/gemm.h"

namespace trit::cuda::sm80 {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = 32 * kWarps;
inline constexpr int kStages = 3;
inline constexpr int kUnits = kTileInputs / 16;  // 16-byte units of a token's row in a stage
inline constexpr int kSteps = kTileInputs / 32;  // of mma in a stage
inline constexpr int kTokenGroup = 8;            // token blocks that run together with a row block
inline constexpr int kCopyRows = kThreads / kUnits;
inline constexpr int kCopyTiles = kThreads / (kTileBytes / 16);
static_assert(kCopyRows % 8 == 0, "the swizzle of all rows that a thread copies is the same");

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
  // Of the epilogue: columns whose sums a warp has in shared memory at a time, and ints from token to token:
  // the 4 tokens x 8 rows of a store are in 32 banks.
  static constexpr int kStoreColumns = 4;
  static constexpr int kSumStride = kWarpRows + 4;
  static constexpr int kWarpSums = kStoreColumns * 8 * kSumStride;
  static_assert(kColumns % 2 == 0, "an ldmatrix.x4 reads 16 tokens");
  static_assert(kWarps * kWarpSums * 4 <= kSharedBytes, "the sums fit where the stages were");
};

/// Where a 16-byte unit of a token's row is in a stage.
__device__ __forceinline__ int swizzled(int row, int unit) {
  return row * kTileInputs + (unit ^ (row % 8)) * 16;
}

/// What a thread copies in every stage: unit `thread % 8` of rows thread / 8, + 16, ... of the tokens, and
/// one unit of every other tile of weights.
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

  /// Starts the copies of the next tile along k into `stage`.
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

}  // namespace trit::cuda::sm80

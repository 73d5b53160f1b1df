// SPDX-License-Identifier: MIT
//
// What the product kernels share: their arguments on the GPU and their launchers, for dispatch.cu.
#pragma once

#include "cuda/common/epilogue.cuh"
#include "trit/cuda.h"

namespace trit::cuda {

/// A product as the kernels see it.
struct ProductArguments {
  const std::uint8_t* weights;  // frag64x128
  const std::int8_t* q;         // [tokens, row_bytes]
  int row_bytes;                // K rounded up to 16
  int tiles_along_k;            // K in tiles of 128
  Output out;
};

/// How one launch of decode cuts its work; all of it follows from the shape and the device.
struct DecodePlan {
  int strips;       // of 16 rows per warp: 2 or 4
  int row_warps;    // P: warps beside each other along the rows
  int k_warps;      // Q: warps that share the rows and split k
  int blocks;       // of P * strips * 16 rows each
  int chunk_tiles;  // tiles along k whose x fits in shared memory at a time
  int x_stride;     // bytes from token to token in shared memory
  int sum_stride;   // ints, likewise
  unsigned shared_bytes;
};
inline constexpr int kMaxDecodeTokens = 16;
DecodePlan plan_decode(const Device& device, std::int64_t tokens, std::int64_t out_features,
                       std::int64_t in_features);
/// Sets the members from chunk_tiles on, after the others; false where not even one tile of x fits.
bool fit_decode(DecodePlan& plan, const Device& device, std::int64_t tokens, std::int64_t in_features);
void launch_decode(const DecodePlan& plan, const ProductArguments& arguments, bool programmatic,
                   Stream stream);

/// The same for decode_one.
struct DecodeOnePlan {
  int strips;     // of 16 rows per warp: 1 or 2
  int tiles;      // of a warp, all in registers; 0: through a ring in shared memory
  int row_warps;  // P: 1 without a ring
  int k_warps;    // Q
  int blocks;     // of P * strips * 16 rows each
  unsigned shared_bytes;
};
inline constexpr int kMaxDecodeOneInputs = 65536;
/// False where x does not fit in shared memory.
bool plan_decode_one(DecodeOnePlan& plan, const Device& device, std::int64_t out_features,
                     std::int64_t in_features, bool programmatic);
void launch_decode_one(const DecodeOnePlan& plan, const ProductArguments& arguments, bool programmatic,
                       Stream stream);

/// The same for gemm_sm80.
struct GemmPlan {
  int tile_tokens;  // 32 or 64; a tile has four times as many rows
  int row_blocks;
  int token_blocks;
  int splits;           // ranges of k, each its own block
  int tiles_per_split;  // along k
};
GemmPlan plan_gemm_sm80(const Device& device, std::int64_t tokens, std::int64_t out_features,
                        std::int64_t in_features, int tile_tokens);
std::size_t gemm_sm80_workspace_bytes(const GemmPlan& plan);
void launch_gemm_sm80(const GemmPlan& plan, const ProductArguments& arguments, void* workspace,
                      bool programmatic, Stream stream);

}  // namespace trit::cuda

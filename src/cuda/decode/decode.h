// SPDX-License-Identifier: MIT
//
// Between decode's plan (plan.cu) and its kernel (kernel.cu).
#pragma once

#include "cuda/common/product_arguments.cuh"
#include "cuda/plan.h"

namespace trit::cuda {

inline constexpr int kMaxDecodeTokens = 16;
inline constexpr int kMaxDecodeWarps = 16;  // of a block
inline constexpr int kDecodeDepth = 4;      // tiles in flight per warp: 4 or 8 KB
/// Bytes after a token's x: rows start in different banks, so that ldmatrix has no conflicts.
inline constexpr int kDecodeRowPadding = 16;
/// Ints after a token's sums: the 4 tokens x 8 rows of a store are in 32 banks.
inline constexpr int kDecodeSumPadding = 4;

/// How one launch divides its work: the plan, and what follows from it, the shape and the device.
struct DecodeLaunch {
  DecodePlan plan;
  int blocks;       // of P * strips * 16 rows each
  int chunk_tiles;  // tiles along k whose x fits in shared memory at a time
  int x_stride;     // bytes from token to token in shared memory
  int sum_stride;   // ints, likewise
  unsigned shared_bytes;
};
void launch_decode(const DecodeLaunch& how, const ProductArguments& arguments, bool programmatic,
                   Stream stream);

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// Between gemm_sm80's plan (plan.cu) and its kernel (kernel.cu).
#pragma once

#include "cuda/common/groups.h"
#include "cuda/common/product_arguments.cuh"

namespace trit::cuda::sm80 {

inline constexpr int kBlocks = 2;  // that run on a multiprocessor at a time
constexpr int rows_of_tile(int tile_tokens) { return 4 * tile_tokens; }

/// How one launch divides its work. Everything follows from the plan and the shape.
struct Launch {
  int tile_tokens;  // 32 or 64; a tile has four times as many rows
  int row_blocks;
  int token_blocks;
  int splits;           // ranges of k, each its own block; none is empty
  int tiles_per_split;  // along k
};
std::size_t workspace_bytes_of(const Launch& how);
void launch_gemm(const Launch& how, const ProductArguments& arguments, const Groups& groups, void* workspace,
                 bool programmatic, Stream stream);

}  // namespace trit::cuda::sm80

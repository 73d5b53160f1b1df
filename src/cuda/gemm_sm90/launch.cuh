// SPDX-License-Identifier: MIT
//
// The host side of the Hopper GEMM, for the products that use it: the layer's (plan.cu) and the gradients
// of its input and its weight (backward/gradient_input.cu, gradient_weight.cu).
//
//   y[token, row] = ((float)acc * s[token]) * beta[row] + bias[row]
//   acc           = sum over k of x[token, k] * t[row, k]
//
// x is int8 or a 16-bit float. Any M, N, K >= 1 within the limits below. No workspace, no allocation, no
// synchronisation; capturable in a graph.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/common/tensor_map.cuh"
#include "cuda/gemm_sm90/parameters.h"
#include "cuda/gemm_sm90/tiles.h"
#include "trit/cuda.h"

namespace trit::cuda {

/// What a compiled tile takes.
struct GemmSm90Launch {
  const TensorMap& x_map;
  const TensorMap& y_map;  // persistent kernel
  GemmSm90Parameters parameters;
  std::int32_t blocks = 0;       // persistent kernel
  std::int32_t row_tiles = 0;    // split kernel
  std::int32_t token_tiles = 0;  // split kernel
  bool programmatic = false;
  Stream stream;
};

/// A compiled tile.
struct GemmSm90Instance {
  GemmSm90Tile tile;
  void (*launch)(const GemmSm90Launch&);
};

/// What a tile with group scales takes: groups of one segment whose scales are float16 or float32, or groups of any length
/// with scales of either type, and tokens with scales of their groups.
enum class GroupScales : std::uint8_t { float16, float32, any };

std::span<const GemmSm90Instance> gemm_sm90_persistent_256();
std::span<const GemmSm90Instance> gemm_sm90_persistent_128();
std::span<const GemmSm90Instance> gemm_sm90_split();
/// With group scales, a tile of 128 inputs in 1, 2 or 4 segments (common/groups.h); of 4 there are tiles for any scales
/// alone.
std::span<const GemmSm90Instance> gemm_sm90_groups(int segments, GroupScales scales);
std::span<const GemmSm90Instance> gemm_sm90_groups_float32(int segments);  // GroupScales::float32
/// Of 16-bit float tokens: bfloat16 or float16.
std::span<const GemmSm90Instance> gemm_sm90_float(DataType type);
/// Of int8 rows in place of ternary weights.
std::span<const GemmSm90Instance> gemm_sm90_int8();

/// Tile counts and coordinates are int32; a matrix near this limit has no room in any GPU.
inline constexpr std::int64_t kMaxGemmSm90Extent = std::int64_t{1} << 30;

/// x: the tokens, wgmma's B operand.
struct GemmSm90Tokens {
  const void* data = nullptr;      // [tokens, in_features], 16-byte aligned
  std::int32_t element_bytes = 1;  // 1: int8, 2: bfloat16 or float16
  std::int64_t in_features = 0;    // K
  std::int64_t stride_bytes = 0;   // between rows, a multiple of 16
};

/// Launches `instance` with `split` blocks a tile, which share K (1 for the persistent kernel). Of `p` the
/// caller sets the pointers, the types, tokens and out_features (1 .. kMaxGemmSm90Extent); rows of y are
/// out_features apart. The rest follows. Throws Error for too many tiles, or with the CUDA error's name;
/// `function` is named by both.
void launch_gemm_sm90(const char* function, const GemmSm90Instance& instance, std::int32_t split,
                      const GemmSm90Tokens& x, GemmSm90Parameters p, std::int32_t multiprocessors,
                      bool programmatic, Stream stream);

}  // namespace trit::cuda

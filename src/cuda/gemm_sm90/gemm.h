// SPDX-License-Identifier: MIT
//
// The product of a ternary layer on GPUs of compute capability 9.0 (H100, H200), for 17 tokens and more:
//
//   y[token, row] = ((float)acc * s[token]) * beta[row] + bias[row],   acc = sum over k of q[token, k] *
//   t[row, k]
//
// acc int32, exact; every step of the epilogue rounded by itself: the bits of the scalar kernels
// (docs/numerics.md). Any M, N, K >= 1 up to kMaxGemmSm90Inputs. No workspace, no allocation, no
// synchronisation; capturable in a graph.
#pragma once

#include <cstdint>

#include "cuda/gemm_sm90/tiles.h"
#include "trit/cuda.h"
#include "trit/format.h"

namespace trit::cuda {

/// The weights are used as 64 * t, so that int32 is safe while 64 * 128 * K < 2^31.
inline constexpr std::int64_t kMaxGemmSm90Inputs = 262143;

struct GemmSm90 {
  const std::int8_t* q =
      nullptr;                // [tokens, q_stride], 16-byte aligned; bytes from in_features on are not used
  std::int64_t q_stride = 0;  // bytes, a multiple of 16, >= in_features
  const float* token_scales = nullptr;    // s [tokens]
  const std::uint8_t* weights = nullptr;  // frag64x128 [ceil(N / 64), ceil(K / 128), 2048], 16-byte aligned
  const float* row_scales = nullptr;      // beta [1], or [out_features] with scale_per_row
  bool scale_per_row = false;
  const float* bias = nullptr;  // [out_features] or null
  DataType y_type = DataType::float32;
  void* y = nullptr;  // [tokens, y_stride], aligned to its elements
  std::int64_t y_stride =
      0;  // elements, >= out_features; 16-bit rows on 16 bytes are stored by the copy engine
  std::int64_t tokens = 0;        // M >= 0
  std::int64_t out_features = 0;  // N >= 1
  std::int64_t in_features = 0;   // K, 1 .. kMaxGemmSm90Inputs
  /// Programmatic dependent launch: may start while the kernel before it in the stream still runs, and waits
  /// for it before it reads q, the scales and the bias or writes y. The weights must be older than that
  /// kernel.
  bool programmatic = false;
};

/// Launches the product on `stream`, with the tile that choose_gemm_sm90 gives for a GPU of
/// `multiprocessors`. Throws Error, having launched nothing, for arguments outside of the ranges above, for K
/// > kMaxGemmSm90Inputs (naming both), or with the CUDA error's name. M = 0 launches nothing.
void gemm_sm90(const GemmSm90& args, std::int32_t multiprocessors, Stream stream);

/// The same with a tile of kGemmSm90Tiles and a cluster of `split` blocks (1 for the persistent kernel), for
/// tests and tuning.
void gemm_sm90(const GemmSm90& args, const GemmSm90Tile& tile, std::int32_t split,
               std::int32_t multiprocessors, Stream stream);

}  // namespace trit::cuda

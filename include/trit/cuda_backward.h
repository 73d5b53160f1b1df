// SPDX-License-Identifier: MIT
//
// The backward of a ternary layer on NVIDIA GPUs. Like the forward in trit/cuda.h: launches on raw device
// pointers and a stream that neither allocate nor synchronise and may be captured into a CUDA graph.
//
// With y = (s q) · (beta t)ᵀ and the straight-through estimator, dX = dY · (beta t) and dW = dYᵀ · (s q).
// Sums are fp32 on the tensor cores, so results agree with another library's to rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trit/cuda.h"
#include "trit/export.h"
#include "trit/gradient.h"

TRIT_EXPORT_BEGIN

namespace trit::cuda {

/// Bytes of a transposed matrix: 2 bits a weight, N and K rounded up to 64.
std::size_t transposed_weight_bytes(std::int64_t out_features, std::int64_t in_features);
/// The stored form, codes [N, packed_row_bytes(K)], to the layout that gradient_input reads; `weights` is
/// aligned to 16. Throws Error for a matrix out of range or weights that are not aligned.
void prepare_transposed(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                        std::uint8_t* weights, Stream stream);

/// dX [M, K] = scale * dY [M, N] · t [N, K], both of a 16-bit type.
struct GradientInput {
  const void* grad = nullptr;  // dY [M, N] of type, aligned to 16
  DataType type = DataType::bfloat16;
  std::int64_t tokens = 0;                // M >= 0
  std::int64_t out_features = 0;          // N >= 1, a multiple of 8
  std::int64_t in_features = 0;           // K >= 1
  const std::uint8_t* weights = nullptr;  // transposed_weight_bytes(N, K), aligned to 16
  const float* scale = nullptr;  // beta [1] per tensor, or null for 1 (scales per row are part of dY then)
  void* grad_x = nullptr;        // out, dX [M, K] of type, aligned to its element
};
/// Whether gradient_input can take these arguments on this device: compute capability 9.0, a 16-bit type and
/// rows of dY that the copy engine reads. `weights` may still be null: ask before you prepare them.
bool gradient_input_fits(const Device& device, const GradientInput& args);
/// Throws Error where gradient_input_fits is false, and for any error that CUDA reports.
void gradient_input(const Device& device, const GradientInput& args, Stream stream);

/// x [M, K] = q * s, each product rounded once to `type`: an operand of the weight's gradient.
struct DequantizeRows {
  const std::int8_t* q = nullptr;  // [M, row_bytes]
  std::int64_t row_bytes = 0;      // >= K
  const float* scale = nullptr;    // s [M]
  std::int64_t tokens = 0;         // M >= 0
  std::int64_t in_features = 0;    // K >= 1
  DataType type = DataType::float32;
  void* x = nullptr;  // out, of type, aligned to its element
};
void dequantize_rows(const DequantizeRows& args, Stream stream);

/// ---- The 8-bit backward: trit/gradient.h, bit for bit ----
///
///   quantize_gradient_rows       dY to int8 per token, and the maxima that the scales per output need
///   product (trit/cuda.h)        dX, with the weights of prepare_transposed_int8: K outputs, N inputs
///   quantize_gradient_outputs    s dY to int8 per output, transposed
///   transpose_activations        q transposed
///   gradient_weight              dW (compute capability 9.0; elsewhere an int8 GEMM of another library)

/// GradientRounding; inside a CUDA graph seed and the rest of the offset come from device memory at each
/// replay.
struct GpuGradientRounding {
  bool stochastic = false;
  std::uint64_t seed = 0;
  std::uint64_t offset = 0;
  const std::int64_t* seed_pointer = nullptr;    // in place of seed
  const std::int64_t* offset_pointer = nullptr;  // added to offset
};

/// The stored form, codes [N, packed_row_bytes(K)], to tᵀ [K, N] in the layout of prepare_weights:
/// weight_bytes(K, N) bytes, aligned to 16.
void prepare_transposed_int8(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                             std::uint8_t* weights, Stream stream);

/// dY [M, N] to codes and a scale per token, for dX, and the largest |dY[m][n] s[m]| of each output n, for dW.
struct GradientRows {
  const void* grad = nullptr;  // dY [M, N] of type, aligned to its element
  DataType type = DataType::bfloat16;
  std::int64_t tokens = 0;              // M >= 0
  std::int64_t out_features = 0;        // N >= 1
  const float* weight_scale = nullptr;  // beta [N] where each output row has its own, else null
  GpuGradientRounding rounding = {};
  std::int8_t* q = nullptr;            // out [M, quantized_row_bytes(N)], aligned to 16; null: no codes
  float* scale = nullptr;              // out [M], with q
  const float* token_scale = nullptr;  // s [M], with maxima
  std::uint32_t* maxima = nullptr;     // in and out [N], zero before: bits of the maxima; null: none
};
void quantize_gradient_rows(const Device& device, const GradientRows& args, Stream stream);

/// Bytes of a row of M tokens: M rounded up to 128, the extra bytes zero.
constexpr std::int64_t gradient_row_bytes(std::int64_t tokens) { return (tokens + 127) / 128 * 128; }

/// s dY to codes [N, gradient_row_bytes(M)] and a scale per output.
struct GradientOutputs {
  const void* grad = nullptr;  // dY [M, N] of type, aligned to its element
  DataType type = DataType::bfloat16;
  std::int64_t tokens = 0;                // M, 1 .. kMaxGradientTokens
  std::int64_t out_features = 0;          // N >= 1
  const float* token_scale = nullptr;     // s [M]
  const std::uint32_t* maxima = nullptr;  // [N], of quantize_gradient_rows
  GpuGradientRounding rounding = {};
  std::int64_t first_token = 0;  // of the part: the token that the random numbers of row 0 belong to
  std::int8_t* q = nullptr;      // out, aligned to 16
  float* scale = nullptr;        // out [N]
};
void quantize_gradient_outputs(const GradientOutputs& args, Stream stream);

/// q [M, K] transposed: rows [K, gradient_row_bytes(M)], or the tiles that gradient_weight reads.
struct TransposeActivations {
  const std::int8_t* q = nullptr;  // [M, row_bytes]
  std::int64_t row_bytes = 0;      // >= K
  std::int64_t tokens = 0;         // M, 1 .. kMaxGradientTokens
  std::int64_t in_features = 0;    // K >= 1
  bool tiles = false;
  std::int8_t* transposed = nullptr;  // out, transposed_activation_bytes(M, K) bytes, aligned to 16
};
/// Of the tiles; rows need no more.
std::size_t transposed_activation_bytes(std::int64_t tokens, std::int64_t in_features);
void transpose_activations(const TransposeActivations& args, Stream stream);

/// dW [N, K] = scale[n] * sum over m of grad[n][m] q[k][m].
struct GradientWeight {
  const std::int8_t* grad = nullptr;   // of quantize_gradient_outputs, aligned to 16
  const float* scale = nullptr;        // [N]
  const std::int8_t* tiles = nullptr;  // of transpose_activations, aligned to 16
  std::int64_t tokens = 0;             // M, 1 .. kMaxGradientTokens
  std::int64_t out_features = 0;       // N >= 1
  std::int64_t in_features = 0;        // K >= 1
  DataType type = DataType::float32;
  void* grad_weight = nullptr;  // out, of type, aligned to its element
};
/// Whether the device has the kernel: compute capability 9.0.
bool gradient_weight_fits(const Device& device);
void gradient_weight(const Device& device, const GradientWeight& args, Stream stream);

/// The backward of RMSNorm, y = x r g with r = 1 / sqrt(mean(x^2) + eps) and u = dL/dy, in one pass over u
/// and x:
///   dL/dx[k] = r g[k] u[k] - x[k] * (r^3 / K) * sum_j g[j] u[j] x[j]
///   dL/dg[k] = sum over rows of u[k] x[k] r
/// dL/dx: each operation is rounded by itself in the order of docs/numerics.md, so it has the CPU's bits.
/// dL/dg: sums in fp32 of each part of the rows; the caller adds up the parts. Which rows are in a part, and their
/// order, depends on M, K and parts alone.
struct NormBackward {
  const void* grad = nullptr;  // u [M, K] of type, aligned to 16
  const void* x = nullptr;     // likewise
  DataType type = DataType::bfloat16;
  std::int64_t tokens = 0;             // M >= 0
  std::int64_t in_features = 0;        // K
  const float* norm_weight = nullptr;  // g [K] aligned to 16, or null for all ones
  const float* rstd = nullptr;         // r [M]
  void* grad_x = nullptr;              // out [M, K] of type, aligned to 16, or null
  float* grad_norm_weight = nullptr;   // out [parts, K] aligned to 16, or null
  std::int64_t parts = 1;              // 1 .. 2^31 - 1; norm_backward_parts(M, K) is fast
};
/// Depends on M and K alone, so that dL/dg has the same bits on every GPU.
std::int64_t norm_backward_parts(std::int64_t tokens, std::int64_t in_features);
/// Whether norm_backward can take these: a 16-bit type, K a multiple of 8 and at most 16,384, pointers
/// aligned.
bool norm_backward_fits(const NormBackward& args);
/// Throws Error where norm_backward_fits is false, and for any error that CUDA reports.
void norm_backward(const Device& device, const NormBackward& args, Stream stream);

}  // namespace trit::cuda

TRIT_EXPORT_END

// SPDX-License-Identifier: MIT
//
// What the 8-bit backward (trit/gradient.h) on a GPU launches, for src/torch and src/torch_stable. Raw pointers and a
// stream, free of torch, no allocation and no synchronisation.
#pragma once

#include <cstdint>

#include "trit/cuda.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer::cuda {

using trit::cuda::Device;
using trit::cuda::Stream;

/// A layer's gradient and activations.
struct GradientInt8 {
  const void* grad;  // dY [M, N] of type, contiguous
  DataType type;
  std::int64_t tokens;
  std::int64_t out_features;
  std::int64_t in_features;
  const float* weight_scale;  // beta [N] where each output row has a scale of its own, else null
  const std::int8_t* q;       // [M, row_bytes]
  std::int64_t row_bytes;     // >= K
  const float* token_scale;   // s [M]
  trit::cuda::GpuGradientRounding rounding;
};
/// Some of its tokens: dW of more than kMaxGradientTokens is made in parts.
struct TokenRange {
  std::int64_t first;
  std::int64_t count;
};

/// The pass over dY: codes q and scale for dX, maxima [N] (zero before) for dW; or one of them, the others null.
void quantize_rows(const Device& device, const GradientInt8& args, const TokenRange& tokens, std::int8_t* q,
                   float* scale, std::uint32_t* maxima, Stream stream);

/// dX [M, K] of grad's type from these codes and scales. `weights`: prepare_transposed_int8; `beta` [1]: the weight's
/// scale, or 1 where each output row has its own; `workspace`: product_workspace_bytes(device, M, K, N).
void gradient_input_int8(const Device& device, const GradientInt8& args, const std::int8_t* q,
                         const float* scale, const std::uint8_t* weights, const float* beta, void* grad_x,
                         void* workspace, Stream stream);

/// The operands of dW. Where gradient_weight does not fit, cuBLASLt's int8 product takes them, which wants more than
/// 16 rows and multiples of 8: the rows that are too many hold anything, and their products are cut off.
struct WeightOperands {
  bool kernel;             // gradient_weight fits
  std::int64_t outputs;    // rows of s dY in int8, >= N
  std::int64_t inputs;     // rows of q transposed, >= K
  std::int64_t row_bytes;  // of both
  std::int64_t transposed_bytes;
};
WeightOperands weight_operands(const Device& device, const GradientInt8& args, std::int64_t tokens);
/// Writes them: codes [outputs, row_bytes], scale [N], and q transposed.
struct WeightOperandsTo {
  std::int8_t* grad;
  float* scale;
  std::int8_t* transposed;
};
void prepare_operands(const GradientInt8& args, const TokenRange& tokens, bool kernel,
                      const std::uint32_t* maxima, const WeightOperandsTo& to, Stream stream);
/// dW [N, K] of `type` by gradient_weight.
void gradient_weight_int8(const Device& device, const GradientInt8& args, std::int64_t tokens,
                          const WeightOperandsTo& operands, DataType type, void* grad_weight, Stream stream);

}  // namespace trit::torch_layer::cuda

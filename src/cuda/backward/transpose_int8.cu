// SPDX-License-Identifier: MIT
//
// Both operands of the 8-bit product over tokens, transposed: 8-bit tensor cores read what they sum over side by
// side.
//
// A block takes 128 tokens x 64 features. Thread (quad, octet) loads 8 neighbouring features of 4 tokens, and
// transposes them to 8 words of 4 tokens:
//
//   shared   words [64 features][33]: 33, so that the columns that a warp writes have no bank conflicts
//
// and a warp writes the 128 bytes of one feature, or of a tile (gemm_sm90/operand.cuh, PlainInt8Operand).
#include <string>

#include "cuda/backward/round_gradient.cuh"
#include "cuda/common/checks.h"
#include "cuda/common/launch.cuh"

namespace trit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTokens = 128;
constexpr int kFeatures = 64;
constexpr int kQuad = 4;   // tokens of a thread
constexpr int kOctet = 8;  // features of a thread
constexpr int kWords = kTokens / kQuad;
constexpr int kStride = kWords + 1;
constexpr int kSharedBytes = kFeatures * kStride * 4;
constexpr int kOperandBytes = kFeatures * kTokens;  // of a tile of gradient_weight

/// A thread's place in a block's tokens and features.
struct Place {
  int quad = static_cast<int>(threadIdx.x) / kOctet;
  int octet = static_cast<int>(threadIdx.x) % kOctet;
};

/// rows[i]: bytes of 4 features of token i; `first` their first feature in the block.
__device__ __forceinline__ void store_transposed(std::uint32_t* words, const Place& place, int first,
                                                 const std::uint32_t (&rows)[kQuad]) {
  std::uint32_t columns[4];
  transpose_bytes(rows, columns);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    words[(kOctet * place.octet + first + j) * kStride + place.quad] = columns[j];
  }
}

/// The block's part of [features, gradient_row_bytes(tokens)].
__device__ __forceinline__ void write_rows(const std::uint32_t* words, std::int8_t* to,
                                           std::int64_t features) {
  const std::int64_t row_bytes = std::int64_t{kTokens} * gridDim.y;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kFeatures / 8; ++i) {
    const std::int64_t feature = std::int64_t{blockIdx.x} * kFeatures + warp + 8 * i;
    if (feature < features) {
      auto* const row = reinterpret_cast<std::uint32_t*>(to + feature * row_bytes);
      row[std::int64_t{blockIdx.y} * kWords + lane] = words[(warp + 8 * i) * kStride + lane];
    }
  }
}

/// The block's tile. Word of register r of a thread (warp w, group g, column c) and step: feature
/// 16 w + g + 8 (r % 2), tokens 32 step + 16 (r / 2) + 4 c ...
__device__ __forceinline__ void write_tile(const std::uint32_t* words, std::int8_t* tile) {
#pragma unroll
  for (int i = 0; i < kOperandBytes / 4 / kThreads; ++i) {
    const int word = static_cast<int>(threadIdx.x) + kThreads * i;
    const int r = word % 4;
    const int lane = word / 4 % 32;
    const int feature = 16 * (word / 128 % 4) + lane / 4 + 8 * (r % 2);
    const int quad = 8 * (word / 512) + 4 * (r / 2) + lane % 4;
    reinterpret_cast<std::uint32_t*>(tile)[word] = words[feature * kStride + quad];
  }
}

template <DataType kType, bool kStochastic>
__global__ __launch_bounds__(kThreads) void quantize_gradient_outputs_kernel(const GradientOutputs a,
                                                                             bool vector) {
  auto* const words = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  auto* const factors = reinterpret_cast<float*>(words + kFeatures * kStride);  // [64]
  const Place place;
  const std::int64_t first_output = std::int64_t{blockIdx.x} * kFeatures;
  const std::int64_t n = first_output + kOctet * place.octet;
  const std::int64_t m = std::int64_t{blockIdx.y} * kTokens + kQuad * place.quad;
  float v[kQuad][kOctet];
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const auto* const from = static_cast<const FloatBits<kType>*>(a.grad) + (m + i) * a.out_features + n;
    if (vector && m + i < a.tokens && n < a.out_features) {
      if constexpr (kType == DataType::float32) {
        const float4 low = *reinterpret_cast<const float4*>(from);
        const float4 high = *reinterpret_cast<const float4*>(from + 4);
        const float eight[kOctet] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int j = 0; j < kOctet; ++j) {
          v[i][j] = eight[j];
        }
      } else {
        from_vector<kType>(*reinterpret_cast<const uint4*>(from), v[i]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kOctet; ++j) {
        v[i][j] = m + i < a.tokens && n + j < a.out_features ? from_bits<kType>(from[j]) : 0.0F;
      }
    }
  }
  if (threadIdx.x < kFeatures) {
    const std::int64_t output = first_output + threadIdx.x;
    GradientScale scale{0.0F, 0.0F};
    if (output < a.out_features) {
      scale = gradient_scale_of(a.maxima[output]);
      if (blockIdx.y == 0) {
        a.scale[output] = scale.scale;
      }
    }
    factors[threadIdx.x] = scale.factor;
  }
  __syncthreads();
  RandomStream random{};
  if constexpr (kStochastic) {
    random = RandomStream::of(a.rounding);
  }
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const float scale = m + i < a.tokens ? a.token_scale[m + i] : 0.0F;
#pragma unroll
    for (int j = 0; j < kOctet; ++j) {
      v[i][j] = __fmul_rn(v[i][j], scale);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float4 four = *reinterpret_cast<const float4*>(factors + kOctet * place.octet + 4 * half);
    const float factor[4] = {four.x, four.y, four.z, four.w};
    std::uint32_t rows[kQuad];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const std::uint64_t counter = counter_of(a.first_token + m + i, n + 4 * half, a.out_features);
      rows[i] = round_four<kStochastic>(&v[i][4 * half], factor, random, counter);
    }
    store_transposed(words, place, 4 * half, rows);
  }
  __syncthreads();
  write_rows(words, a.q, a.out_features);
}

__global__ __launch_bounds__(kThreads) void transpose_activations_kernel(const TransposeActivations a,
                                                                         bool vector) {
  auto* const words = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  const Place place;
  const std::int64_t k = std::int64_t{blockIdx.x} * kFeatures + kOctet * place.octet;
  const std::int64_t m = std::int64_t{blockIdx.y} * kTokens + kQuad * place.quad;
  std::uint32_t low[kQuad];
  std::uint32_t high[kQuad];
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const std::int8_t* const from = a.q + (m + i) * a.row_bytes + k;
    low[i] = 0;
    high[i] = 0;
    if (m + i >= a.tokens) {
      continue;
    }
    if (vector && k + kOctet <= a.in_features) {
      const uint2 eight = *reinterpret_cast<const uint2*>(from);
      low[i] = eight.x;
      high[i] = eight.y;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (k + j < a.in_features) {
          low[i] |= (static_cast<std::uint32_t>(from[j]) & 0xffU) << (8 * j);
        }
        if (k + 4 + j < a.in_features) {
          high[i] |= (static_cast<std::uint32_t>(from[4 + j]) & 0xffU) << (8 * j);
        }
      }
    }
  }
  store_transposed(words, place, 0, low);
  store_transposed(words, place, 4, high);
  __syncthreads();
  if (a.tiles) {
    write_tile(words, a.transposed + (std::int64_t{blockIdx.x} * gridDim.y + blockIdx.y) * kOperandBytes);
  } else {
    write_rows(words, a.transposed, a.in_features);
  }
}

LaunchShape shape_of(std::int64_t tokens, std::int64_t features, unsigned shared_bytes) {
  return {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(features, kFeatures)),
                   static_cast<unsigned>(ceil_div<std::int64_t>(tokens, kTokens))},
          .block = {kThreads},
          .shared_bytes = shared_bytes};
}

void require_part(std::int64_t tokens, const char* function) {
  if (tokens < 1 || tokens > kMaxGradientTokens) {
    throw Error(std::string("cuda::") + function + ": " + std::to_string(tokens) + " tokens, wanted 1 .. " +
                std::to_string(kMaxGradientTokens));
  }
}

}  // namespace

void quantize_gradient_outputs(const GradientOutputs& args, Stream stream) {
  require_part(args.tokens, "quantize_gradient_outputs");
  require_matrix(1, args.out_features, "quantize_gradient_outputs");
  require_aligned(args.grad, size_of(args.type), "quantize_gradient_outputs", "grad");
  require_aligned(args.token_scale, sizeof(float), "quantize_gradient_outputs", "token_scale");
  require_aligned(args.maxima, sizeof(std::uint32_t), "quantize_gradient_outputs", "maxima");
  require_aligned(args.q, 16, "quantize_gradient_outputs", "q");
  require_aligned(args.scale, sizeof(float), "quantize_gradient_outputs", "scale");
  const bool vector = args.out_features % kOctet == 0 && is_aligned(args.grad, 16);
  const LaunchShape shape =
      shape_of(args.tokens, args.out_features, kSharedBytes + kFeatures * sizeof(float));
  for_type(args.type, [&]<DataType kType>() {
    if (args.rounding.stochastic) {
      launch<quantize_gradient_outputs_kernel<kType, true>>("quantize_gradient_outputs", shape, stream, args,
                                                            vector);
    } else {
      launch<quantize_gradient_outputs_kernel<kType, false>>("quantize_gradient_outputs", shape, stream, args,
                                                             vector);
    }
  });
}

std::size_t transposed_activation_bytes(std::int64_t tokens, std::int64_t in_features) {
  return static_cast<std::size_t>(ceil_div<std::int64_t>(in_features, kFeatures) *
                                  ceil_div<std::int64_t>(tokens, kTokens)) *
         kOperandBytes;
}

void transpose_activations(const TransposeActivations& args, Stream stream) {
  require_part(args.tokens, "transpose_activations");
  require_matrix(1, args.in_features, "transpose_activations");
  require_aligned(args.q, 1, "transpose_activations", "q");
  require_aligned(args.transposed, 16, "transpose_activations", "transposed");
  if (args.row_bytes < args.in_features) {
    throw Error("cuda::transpose_activations: " + std::to_string(args.in_features) + " inputs in rows of " +
                std::to_string(args.row_bytes) + " bytes, wanted rows that hold them");
  }
  const bool vector = args.row_bytes % 8 == 0 && is_aligned(args.q, 8);
  launch<transpose_activations_kernel>(
      "transpose_activations", shape_of(args.tokens, args.in_features, kSharedBytes), stream, args, vector);
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// The transposed weights of the backward products, from the stored form: tiles of 64 inputs of the layer (the
// product's rows) and 64 outputs (what it sums over) of gemm_sm90/operand.cuh's 16-bit words, or 128 outputs of
// fragments.cuh's words for gradients in int8.
#include "cuda/common/checks.h"
#include "cuda/common/fragments.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/gemm_sm90/operand.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSide = 64;
constexpr int kRowBytes = kSide / 4;  // codes of a tile's 64 inputs

__global__ __launch_bounds__(kThreads) void prepare_transposed_kernel(const std::uint8_t* codes,
                                                                      std::int64_t out_features,
                                                                      std::int64_t in_features,
                                                                      std::uint8_t* weights) {
  auto* const tile = dynamic_shared();  // [64 outputs][16 bytes]
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t block = blockIdx.y;  // of 64 inputs
  const std::int64_t first_output = std::int64_t{blockIdx.x} * kSide;
  {
    const std::int64_t output = first_output + thread / 2;
    const std::int64_t byte = block * kRowBytes + thread % 2 * 8;
    const std::uint8_t* from = codes + output * row_bytes + byte;
    uint2 eight = {0, 0};
    if (output < out_features) {
      if (byte + 8 <= row_bytes && reinterpret_cast<std::uintptr_t>(from) % 8 == 0) {
        eight = *reinterpret_cast<const uint2*>(from);
      } else {
        for (int i = 0; i < 8 && byte + i < row_bytes; ++i) {
          (i < 4 ? eight.x : eight.y) |= std::uint32_t{from[i]} << (8 * (i % 4));
        }
      }
    }
    *reinterpret_cast<uint2*>(tile + thread * 8) = eight;
  }
  __syncthreads();
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const int column = thread % 4;
  uint2 words = {0, 0};
#pragma unroll
  for (int word = 0; word < 2; ++word) {
    std::uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const int k = row + 8 * (r % 2);
      const int n = 32 * word + 16 * (r / 4) + 2 * column + 8 * (r / 2 % 2);
      const std::uint32_t even = tile[n * kRowBytes + k / 4] >> (2 * (k % 4)) & 3U;
      const std::uint32_t odd = tile[(n + 1) * kRowBytes + k / 4] >> (2 * (k % 4)) & 3U;
      bits |= (even | odd << 16U) << (14 - 2 * r);
    }
    (word == 0 ? words.x : words.y) = bits;
  }
  const std::int64_t tiles_along = gridDim.x;
  auto* const to = weights + (block * tiles_along + blockIdx.x) * 1024;
  reinterpret_cast<uint2*>(to)[thread] = words;
}

__global__ __launch_bounds__(kThreads) void prepare_transposed_int8_kernel(const std::uint8_t* codes,
                                                                           std::int64_t out_features,
                                                                           std::int64_t in_features,
                                                                           std::uint8_t* weights) {
  auto* const tile = dynamic_shared();  // [128 outputs][16 bytes]
  const std::int64_t row_bytes = ceil_div<std::int64_t>(in_features, 4);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t block = blockIdx.y;  // of 64 inputs
  {
    const std::int64_t output = std::int64_t{blockIdx.x} * kTileInputs + thread;
    const std::int64_t byte = block * kRowBytes;
    const std::uint8_t* const from = codes + output * row_bytes + byte;
    uint4 sixteen = {0, 0, 0, 0};
    if (output < out_features) {
      if (byte + 16 <= row_bytes && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
        sixteen = *reinterpret_cast<const uint4*>(from);
      } else {
        for (int i = 0; i < 16 && byte + i < row_bytes; ++i) {
          std::uint32_t& word = i < 4 ? sixteen.x : i < 8 ? sixteen.y : i < 12 ? sixteen.z : sixteen.w;
          word |= std::uint32_t{from[i]} << (8 * (i % 4));
        }
      }
    }
    *reinterpret_cast<uint4*>(tile + thread * 16) = sixteen;
  }
  __syncthreads();
  const int row = thread / 32 * kStripRows + thread % 32 / 4;
  const int column = thread % 4;
  std::uint32_t words[4];
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    std::uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int k = row + 8 * (r % 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 32 * word + 16 * (r / 2) + 4 * column + i;
        bits |= (tile[n * kRowBytes + k / 4] >> (2 * (k % 4)) & 3U) << (8 * i + 6 - 2 * r);
      }
    }
    words[word] = bits;
  }
  *reinterpret_cast<uint4*>(weights + tile_offset(block, blockIdx.x, gridDim.x) + thread * 16) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace

void prepare_transposed_int8(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                             std::uint8_t* weights, Stream stream) {
  require_matrix(out_features, in_features, "prepare_transposed_int8");
  require_aligned(weights, 16, "prepare_transposed_int8", "weights");
  launch<prepare_transposed_int8_kernel>(
      "prepare_transposed_int8",
      {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(out_features, kTileInputs)),
                static_cast<unsigned>(ceil_div<std::int64_t>(in_features, kTileRows))},
       .block = {kThreads},
       .shared_bytes = kTileInputs * kRowBytes},
      stream, codes, out_features, in_features, weights);
}

std::size_t transposed_weight_bytes(std::int64_t out_features, std::int64_t in_features) {
  return static_cast<std::size_t>(ceil_div<std::int64_t>(out_features, kSide) *
                                  ceil_div<std::int64_t>(in_features, kSide)) *
         1024;
}

void prepare_transposed(const std::uint8_t* codes, std::int64_t out_features, std::int64_t in_features,
                        std::uint8_t* weights, Stream stream) {
  require_matrix(out_features, in_features, "prepare_transposed");
  require_aligned(weights, 16, "prepare_transposed", "weights");
  launch<prepare_transposed_kernel>(
      "prepare_transposed",
      {.grid = {static_cast<unsigned>(ceil_div<std::int64_t>(out_features, kSide)),
                static_cast<unsigned>(ceil_div<std::int64_t>(in_features, kSide))},
       .block = {kThreads},
       .shared_bytes = kSide * kRowBytes},
      stream, codes, out_features, in_features, weights);
}

}  // namespace trit::cuda

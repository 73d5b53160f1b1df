// SPDX-License-Identifier: MIT
//
// norm_quant of many rows of 16-bit inputs that fit in registers: a block of 128 threads per row, thread t
// holds inputs 256 i + 2 t and + 1 of every step i, which are what accumulators 2 t and 2 t + 1 of lane_sum
// add up. A row is read once, 4 bytes a thread, all of it in flight at once; q leaves 2 bytes at a time. On
// an H200 that is 0.92 of the read bandwidth at 8192 inputs, where a row in shared memory is 0.82.
#pragma once

#include "cuda/rows/norm_quant_scale.cuh"

namespace trit::cuda {

inline constexpr int kRegisterThreads = kLanes / 2;
inline constexpr int kRegisterHeaderBytes = kLanes * 4 + 16;  // accumulators, the warps' maxima

/// Blocks of a multiprocessor: their registers hold a row, and the weights' floats beside it. The longest rows
/// with weights spill in the 168 registers of three blocks before compute capability 9.0.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr int kLongestRowBlocks = 2;
#else
inline constexpr int kLongestRowBlocks = 3;
#endif
constexpr int blocks_with(int steps, bool weighted) {
  return weighted ? (steps > 32 ? kLongestRowBlocks : 5) : (steps > 32 ? 4 : 8);
}

/// One of a pair, in the low 16 bits.
__device__ __forceinline__ float low_half(DataType type, std::uint32_t bits) {
  return type == DataType::bfloat16 ? __uint_as_float(bits << 16)
                                    : ptx::from_float16(static_cast<std::uint16_t>(bits));
}
/// A pair's inputs; what lies beyond the row is 0, which adds and quantises to 0.
template <DataType kType>
__device__ __forceinline__ void split_pair(std::uint32_t pair, float (&values)[2]) {
  values[0] = low_half(kType, pair & 0xffffU);
  values[1] = low_half(kType, pair >> 16U);
}

/// x g of inputs k and k + 1.
template <bool kWeighted>
__device__ __forceinline__ void weigh(float (&values)[2], const float* g, int k, int count) {
  if constexpr (kWeighted) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      values[j] = k + j < count ? __fmul_rn(values[j], g[k + j]) : values[j];
    }
  }
}

/// x is aligned to 4 bytes, its rows are an even number of inputs apart, and in_features <= 256 kSteps.
/// kWeighted: there is a norm_weight.
template <DataType kType, bool kNorm, bool kWeighted, int kSteps>
__global__ __launch_bounds__(
    kRegisterThreads,
    blocks_with(kSteps, kWeighted)) void norm_quant_registers_kernel(const NormQuantArguments a) {
  static_assert(kType != DataType::float32, "a pair is one register");
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());    // [256]
  auto* maxima = reinterpret_cast<unsigned*>(accumulators + kLanes);  // [4]
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = blockIdx.x;
  const auto* x = static_cast<const std::uint16_t*>(a.x) + row * a.x_stride;
  const float* g = a.norm_weight;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  std::uint32_t pairs[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int k = kLanes * i + 2 * thread;
    pairs[i] = 0;
    if (k + 1 < a.in_features) {
      pairs[i] = *reinterpret_cast<const std::uint32_t*>(x + k);
    } else if (k < a.in_features) {
      pairs[i] = x[k];
    }
  }
  float acc[2] = {};
  unsigned largest = 0;  // of bits: a NaN stays the largest
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    float values[2];
    split_pair<kType>(pairs[i], values);
    if constexpr (kNorm) {
      acc[0] = __fmaf_rn(values[0], values[0], acc[0]);
      acc[1] = __fmaf_rn(values[1], values[1], acc[1]);
    }
    weigh<kWeighted>(values, g, kLanes * i + 2 * thread, a.in_features);
    largest = max(largest, __float_as_uint(values[0]) & 0x7fffffffU);
    largest = max(largest, __float_as_uint(values[1]) & 0x7fffffffU);
  }
  largest = __reduce_max_sync(0xffffffffU, largest);
  accumulators[2 * thread] = acc[0];
  accumulators[2 * thread + 1] = acc[1];
  if (thread % 32 == 0) {
    maxima[thread / 32] = largest;
  }
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kRegisterThreads / 32; ++warp) {
    largest = max(largest, maxima[warp]);
  }
  const float squares = kNorm ? tree_sum(accumulators, thread % 32) : 0.0F;
  const TokenScale scale = token_scale<kNorm>(a, squares, __uint_as_float(largest));
  if (thread == 0) {
    store_token_scale(a, row, scale);
  }
  std::int8_t* q = a.q + row * a.row_bytes;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int k = kLanes * i + 2 * thread;
    float values[2];
    ptx::opaque(pairs[i]);  // else the floats of the first pass stay in registers, twice as many
    split_pair<kType>(pairs[i], values);
    weigh<kWeighted>(values, g, k, a.in_features);
    const std::uint32_t bytes = rounded_byte(__fmul_rn(values[0], scale.factor)) |
                                rounded_byte(__fmul_rn(values[1], scale.factor)) << 8U;
    if (k < a.row_bytes) {
      *reinterpret_cast<std::uint16_t*>(q + k) = static_cast<std::uint16_t>(scale.good ? bytes : 0U);
    }
  }
}

}  // namespace trit::cuda

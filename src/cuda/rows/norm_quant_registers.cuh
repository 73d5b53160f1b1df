// SPDX-License-Identifier: MIT
//
// norm_quant of rows of 16-bit inputs that fit in registers: a block of 128 threads per row, thread t holds
// inputs 256 i + 2 t and + 1 of every step i, which are what accumulators 2 t and 2 t + 1 of lane_sum add up. A
// row is read once, 4 bytes a thread, all of it in flight at once; q leaves 2 bytes at a time. On an H200 that
// is 0.92 of the read bandwidth at 8192 inputs, where a row in shared memory is 0.82.
//
// With a norm weight x g is kept as floats: its second load for the second pass took more than the registers.
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

/// x is aligned to 4 bytes, its rows are an even number of inputs apart, norm_weight is aligned to 8, and in_features
/// is even and at most 256 kSteps. kWeighted: there is a norm_weight.
template <DataType kType, bool kNorm, bool kWeighted, int kSteps>
__global__ __launch_bounds__(
    kRegisterThreads,
    blocks_with(kSteps, kWeighted)) void norm_quant_registers_kernel(const NormQuantArguments a) {
  static_assert(kType != DataType::float32, "a pair is one register");
  auto* accumulators = reinterpret_cast<float*>(dynamic_shared());    // [256]
  auto* maxima = reinterpret_cast<unsigned*>(accumulators + kLanes);  // [4]
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = blockIdx.x;
  const auto* const x = static_cast<const std::uint16_t*>(a.x) + row * a.x_stride + 2 * thread;
  const auto* const g = reinterpret_cast<const float2*>(a.norm_weight) + thread;
  const int left = a.in_features - 2 * thread;  // of the row, from this thread's first input on
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  std::uint32_t pairs[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    pairs[i] = 0;
    if (kLanes * i < left) {
      // Past L1 where a norm weight lies there; without one that costs 5 to 10 %.
      const std::uint16_t* const pair = x + kLanes * i;
      pairs[i] = kWeighted ? ptx::load_once_4(pair) : *reinterpret_cast<const std::uint32_t*>(pair);
    }
  }
  float2 acc = {};
  float2 weighted[kWeighted ? kSteps : 1];
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    float2 values = from_word<kType>(pairs[i]);
    if constexpr (kNorm) {
      acc = {__fmaf_rn(values.x, values.x, acc.x), __fmaf_rn(values.y, values.y, acc.y)};
    }
    if constexpr (kWeighted) {
      const float2 of_pair = kLanes * i < left ? g[kRegisterThreads * i] : float2{};
      values = {__fmul_rn(values.x, of_pair.x), __fmul_rn(values.y, of_pair.y)};
      weighted[i] = values;
    }
    largest = ptx::max_magnitude(ptx::max_magnitude(largest, values.x), values.y);
  }
  unsigned bits = __reduce_max_sync(0xffffffffU, __float_as_uint(largest));
  reinterpret_cast<float2*>(accumulators)[thread] = acc;
  if (thread % 32 == 0) {
    maxima[thread / 32] = bits;
  }
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kRegisterThreads / 32; ++warp) {
    bits = max(bits, maxima[warp]);
  }
  const float squares = kNorm ? tree_sum(accumulators, thread % 32) : 0.0F;
  const TokenScale scale = token_scale<kNorm>(a, squares, __uint_as_float(bits));
  if (thread == 0) {
    store_token_scale(a, row, scale);
  }
  std::int8_t* const q = a.q + row * a.row_bytes + 2 * thread;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    float2 values;
    if constexpr (kWeighted) {
      values = weighted[i];
    } else {
      ptx::opaque(pairs[i]);  // else the floats of the first pass stay in registers, twice as many
      values = from_word<kType>(pairs[i]);
    }
    const std::uint32_t bytes =
        rounded_word(__fmul_rn(values.x, scale.factor), __fmul_rn(values.y, scale.factor));
    if (kLanes * i < a.row_bytes - 2 * thread) {
      *reinterpret_cast<std::uint16_t*>(q + kLanes * i) = static_cast<std::uint16_t>(scale.good ? bytes : 0U);
    }
  }
}

}  // namespace trit::cuda

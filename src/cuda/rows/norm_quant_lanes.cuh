// SPDX-License-Identifier: MIT
//
// norm_quant with a norm weight, of many rows of 16-bit inputs: the weight stays in registers. A block of 128 threads
// stays and takes rows in turn; thread t holds inputs 256 i + 2 t and + 1 of every step i, which are what
// accumulators 2 t and 2 t + 1 of lane_sum add up.
//
//   shared   the next row, 16 bits: [warp][kSteps][64], what the warp's threads hold of it
//            accumulators [2][256], maxima [2][4]: a warp may be a row ahead of another
//
// A warp copies what it holds itself, and copies again as soon as it has read that: no barrier is needed for it. What
// lies beyond the row is 0.
#pragma once

#include "cuda/rows/norm_quant_scale.cuh"

namespace trit::cuda {

inline constexpr int kLanesThreads = kLanes / 2;
inline constexpr int kLanesWarps = kLanesThreads / 32;

constexpr unsigned lanes_shared_bytes(int steps) {
  return static_cast<unsigned>(kLanes * steps * 2 + 2 * kLanes * 4 + 2 * kLanesWarps * 4);
}

/// x is aligned to 16 bytes, its rows are a multiple of 8 inputs apart, and so is in_features <= 256 kSteps;
/// norm_weight is aligned to 8. kBlocks: of a multiprocessor.
template <DataType kType, int kSteps, int kBlocks>
__global__ __launch_bounds__(kLanesThreads,
                             kBlocks) void norm_quant_lanes_kernel(const NormQuantArguments a) {
  auto* const rows = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  auto* const all_accumulators = reinterpret_cast<float*>(rows + kLanes / 2 * kSteps);
  auto* const all_maxima = reinterpret_cast<unsigned*>(all_accumulators + 2 * kLanes);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  std::uint32_t* const held = rows + 32 * kSteps * warp;
  const int next = static_cast<int>(gridDim.x);
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  // A step of a warp is 128 bytes in a row: eight lanes copy it, so that one instruction takes four steps.
  const int copied = kLanes * (lane / 8) + 64 * warp + 8 * (lane % 8);
  const auto fetch = [&](int row) {
    if (row < a.tokens) {
      const auto* const from = static_cast<const std::uint16_t*>(a.x) + row * a.x_stride + copied;
#pragma unroll
      for (int i = 0; i < kSteps / 4; ++i) {
        if (4 * kLanes * i < a.in_features - copied) {
          ptx::cp_async_16(held + 4 * lane + 128 * i, from + 4 * kLanes * i);
        }
      }
    }
    ptx::cp_async_commit();
  };
  fetch(static_cast<int>(blockIdx.x));
  float2 weight[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    weight[i] = {};
    if (kLanes * i < a.in_features - 2 * thread) {
      weight[i] = reinterpret_cast<const float2*>(a.norm_weight)[kLanesThreads * i + thread];
    } else {
      held[32 * i + lane] = 0;
    }
  }
  int parity = 0;
#pragma unroll 1
  for (int row = static_cast<int>(blockIdx.x); row < a.tokens; row += next) {
    std::uint32_t pairs[kSteps];
    ptx::cp_async_wait<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      pairs[i] = held[32 * i + lane];
    }
    __syncwarp();
    fetch(row + next);
    float2 acc = {};
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const float2 x = from_word<kType>(pairs[i]);
      acc = {__fmaf_rn(x.x, x.x, acc.x), __fmaf_rn(x.y, x.y, acc.y)};
      largest = ptx::max_magnitude(largest, __fmul_rn(x.x, weight[i].x));
      largest = ptx::max_magnitude(largest, __fmul_rn(x.y, weight[i].y));
    }
    float* const accumulators = all_accumulators + parity * kLanes;
    unsigned* const maxima = all_maxima + parity * kLanesWarps;
    parity ^= 1;
    reinterpret_cast<float2*>(accumulators)[thread] = acc;
    const unsigned of_warp = __reduce_max_sync(0xffffffffU, __float_as_uint(largest));
    if (lane == 0) {
      maxima[warp] = of_warp;
    }
    __syncthreads();
    const uint4 of_warps = *reinterpret_cast<const uint4*>(maxima);
    const unsigned bits = max(max(of_warps.x, of_warps.y), max(of_warps.z, of_warps.w));
    const TokenScale scale = token_scale<true>(a, tree_sum(accumulators, lane), __uint_as_float(bits));
    if (thread == 0) {
      store_token_scale(a, row, scale);
    }
    std::int8_t* const q = a.q + std::int64_t{row} * a.row_bytes + 2 * thread;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      ptx::opaque(pairs[i]);  // else the floats of the first pass stay in registers
      const float2 x = from_word<kType>(pairs[i]);
      const std::uint32_t bytes = rounded_word(__fmul_rn(__fmul_rn(x.x, weight[i].x), scale.factor),
                                               __fmul_rn(__fmul_rn(x.y, weight[i].y), scale.factor));
      if (kLanes * i < a.row_bytes - 2 * thread) {
        *reinterpret_cast<std::uint16_t*>(q + kLanes * i) =
            static_cast<std::uint16_t>(scale.good ? bytes : 0U);
      }
    }
  }
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm where a thread holds eight neighbouring inputs of every step, for all rows of a block:
// products go through shared memory to the threads that add them up.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {

/// Floats between the planes of the products: the first four of eight inputs, and the others. An odd number of
/// half lines of the banks.
__host__ __device__ constexpr int plane_floats(int features) { return round_up(features / 2, 32) + 16; }

/// kStages: rows ahead, in shared memory; 0: one, in registers.
template <DataType kType, bool kWeighted, int kSteps, int kStages, int kThreads, int kBlocks,
          bool kInterleave>
__global__ __launch_bounds__(kThreads, kBlocks) void norm_columns_kernel(const NormBackward a) {
  constexpr int kEight = 8;
  constexpr bool kHoldWeight = kWeighted && kSteps == 1;
  constexpr int kHeldRows = kStages == 0 ? kSteps : 1;
  const int features = static_cast<int>(a.in_features);
  const int plane = plane_floats(features);
  auto* const products = reinterpret_cast<float*>(dynamic_shared());  // [2][plane]
  auto* const accumulators = products + 2 * plane;                    // [2][256]
  auto* const ring = reinterpret_cast<uint4*>(accumulators + 2 * kLanes);
  const int thread = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int step = kEight * threads;
  const std::int64_t part = blockIdx.x;
  const std::int64_t begin = kInterleave ? part : part * a.tokens / gridDim.x;
  const std::int64_t end = kInterleave ? a.tokens : (part + 1) * a.tokens / gridDim.x;
  const std::int64_t next = kInterleave ? gridDim.x : 1;
  float sums[kSteps][kEight] = {};
  float held_weight[kEight] = {};
  if constexpr (kHoldWeight) {
    if (kEight * thread < features) {
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        held_weight[j] = a.norm_weight[kEight * thread + j];
      }
    }
  }
  const auto weigh = [&](float(&values)[kEight], int k) {
    if constexpr (kHoldWeight) {
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        values[j] = __fmul_rn(values[j], held_weight[j]);
      }
    } else if constexpr (kWeighted) {
      const auto* const four = reinterpret_cast<const float4*>(a.norm_weight + k);
      const float4 low = four[0];
      const float4 high = four[1];
      const float g[kEight] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < kEight; ++j) {
        values[j] = __fmul_rn(values[j], g[j]);
      }
    }
  };
  uint4 next_u[kHeldRows] = {};
  uint4 next_x[kHeldRows] = {};
  // Vector i of this thread in a stage: u, then x.
  const auto slot = [&](int stage, int i) { return ring + ((stage * kSteps + i) * 2) * threads + thread; };
  const auto fetch = [&](std::int64_t row, int stage) {
    if (row < end) {
      const auto* const u_row = static_cast<const std::uint16_t*>(a.grad) + row * features;
      const auto* const x_row = static_cast<const std::uint16_t*>(a.x) + row * features;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int k = step * i + kEight * thread;
        if (k < features) {
          if constexpr (kStages == 0) {
            next_u[i] = ptx::load_once_16(u_row + k);
            next_x[i] = ptx::load_once_16(x_row + k);
          } else {
            ptx::cp_async_16(slot(stage, i), u_row + k);
            ptx::cp_async_16(slot(stage, i) + threads, x_row + k);
          }
        }
      }
    }
    if constexpr (kStages > 0) {
      ptx::cp_async_commit();
    }
  };
  constexpr int kAhead = kStages == 0 ? 1 : kStages;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    fetch(begin + i * next, i);
  }
  int stage = 0;
  int parity = 0;
  for (std::int64_t row = begin; row < end; row += next) {
    // One step: the row stays in registers, and its stage is filled again at once.
    constexpr bool kKeep = kStages == 0 || kSteps == 1;
    uint4 u[kKeep ? kSteps : 1];
    uint4 x[kKeep ? kSteps : 1];
    if constexpr (kStages > 0) {
      ptx::cp_async_wait<kStages - 1>();
    }
    if constexpr (kKeep) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        u[i] = kStages == 0 ? next_u[kStages == 0 ? i : 0] : *slot(stage, i);
        x[i] = kStages == 0 ? next_x[kStages == 0 ? i : 0] : slot(stage, i)[threads];
      }
      fetch(row + kAhead * next, stage);
    }
    const float rstd = a.rstd[row];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features) {
        float grad[kEight];
        float value[kEight];
        from_vector<kType>(kKeep ? u[kKeep ? i : 0] : *slot(stage, i), grad);
        from_vector<kType>(kKeep ? x[kKeep ? i : 0] : slot(stage, i)[threads], value);
#pragma unroll
        for (int j = 0; j < kEight; ++j) {
          sums[i][j] = __fmaf_rn(grad[j], __fmul_rn(value[j], rstd), sums[i][j]);
        }
        weigh(grad, k);
        auto* const to = reinterpret_cast<float4*>(products + k / 2);
        to[0] = {__fmul_rn(grad[0], value[0]), __fmul_rn(grad[1], value[1]), __fmul_rn(grad[2], value[2]),
                 __fmul_rn(grad[3], value[3])};
        reinterpret_cast<float4*>(products + plane + k / 2)[0] = {
            __fmul_rn(grad[4], value[4]), __fmul_rn(grad[5], value[5]), __fmul_rn(grad[6], value[6]),
            __fmul_rn(grad[7], value[7])};
      }
    }
    __syncthreads();
    float* const buffer = accumulators + parity * kLanes;
    parity ^= 1;
    for (int lane = thread; lane < kLanes; lane += threads) {
      const float* const mine = products + (lane & 4) / 4 * plane + lane / 8 * 4 + lane % 4;
      float acc = 0;
#pragma unroll 10
      for (int k = lane; k < features; k += kLanes) {
        acc = __fadd_rn(acc, mine[k / kLanes * (kLanes / 2)]);
      }
      buffer[lane] = acc;
    }
    __syncthreads();
    const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
    const float along =
        __fmul_rn(__fdiv_rn(cube, static_cast<float>(features)), tree_sum(buffer, thread % 32));
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features && a.grad_x != nullptr) {
        float grad[kEight];
        float value[kEight];
        from_vector<kType>(kKeep ? u[kKeep ? i : 0] : *slot(stage, i), grad);
        from_vector<kType>(kKeep ? x[kKeep ? i : 0] : slot(stage, i)[threads], value);
        weigh(grad, k);
#pragma unroll
        for (int j = 0; j < kEight; ++j) {
          grad[j] = __fsub_rn(__fmul_rn(rstd, grad[j]), __fmul_rn(along, value[j]));
        }
        *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(a.grad_x) + row * features + k) =
            to_vector<kType>(grad);
      }
    }
    if constexpr (!kKeep) {
      fetch(row + kAhead * next, stage);
    }
    if constexpr (kStages > 0) {
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
  }
  if (a.grad_norm_weight != nullptr) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = step * i + kEight * thread;
      if (k < features) {
        auto* const out = reinterpret_cast<float4*>(a.grad_norm_weight + part * features + k);
        out[0] = {sums[i][0], sums[i][1], sums[i][2], sums[i][3]};
        out[1] = {sums[i][4], sums[i][5], sums[i][6], sums[i][7]};
      }
    }
  }
}

}  // namespace trit::cuda

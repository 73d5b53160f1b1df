// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm for rows of up to 4096 inputs: a thread holds two whole accumulators of lane_sum, so
// that products need no shared memory.
//
//   a team of 128 threads takes a row; thread t holds inputs 256 i + 2 t and + 1 of every step i: of u and x as
//   they are, and of dg's sums over all rows of the team. A block has several teams, each with a barrier of its own.
//
//   shared   ring of each team [kStages][u, x][256 kSteps], 16 bits: while a row is worked on, the next ones are
//            under way
//            g [256 kSteps], fp32
//            accumulators [2][kTeams][256]: two, since a thread may be one row ahead of another
//
// What lies beyond a row of K inputs is 0: its products add nothing, so that no step needs a branch.
//
// One barrier a row: before it the row's accumulators are written, the row itself is in registers, and this
// thread's part of the next row has arrived. After it the next row may be read, and this row's slot filled again.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "cuda/common/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {

inline constexpr int kTeamThreads = kLanes / 2;

/// kSteps: in_features <= 256 kSteps. kBlocks: of a multiprocessor. in_turn: team i of all takes rows i, i + teams,
/// ... of the matrix; otherwise each block has rows of its own, which its teams take in turn.
template <DataType kType, bool kWeighted, int kSteps, int kTeams, int kStages, int kBlocks>
__global__ __launch_bounds__(kTeamThreads* kTeams,
                             kBlocks) void norm_backward_lanes_kernel(const NormBackward a,
                                                                      const bool in_turn) {
  static_assert(kStages >= 2);
  constexpr int kPadded = kLanes * kSteps;
  const int features = static_cast<int>(a.in_features);
  auto* const rings = reinterpret_cast<std::uint16_t*>(dynamic_shared());
  auto* const weight = reinterpret_cast<float*>(rings + kTeams * kStages * 2 * kPadded);
  auto* const accumulators = weight + (kWeighted ? kPadded : 0);
  const int team = static_cast<int>(threadIdx.x) / kTeamThreads;
  const int thread = static_cast<int>(threadIdx.x) % kTeamThreads;
  auto* const ring = rings + team * kStages * 2 * kPadded;
  const std::int64_t part = blockIdx.x;
  const std::int64_t begin = in_turn ? part * kTeams : part * a.tokens / gridDim.x;
  const std::int64_t end = in_turn ? a.tokens : (part + 1) * a.tokens / gridDim.x;
  const std::int64_t next = in_turn ? std::int64_t{kTeams} * gridDim.x : kTeams;
  const auto fetch = [&](std::int64_t row, int slot) {
    if (row < end) {
      const auto* const u_row = static_cast<const std::uint16_t*>(a.grad) + row * features;
      const auto* const x_row = static_cast<const std::uint16_t*>(a.x) + row * features;
      std::uint16_t* const to = ring + slot * 2 * kPadded;
#pragma unroll
      for (int i = 0; i < (kSteps + 3) / 4; ++i) {
        const int k = 8 * (kTeamThreads * i + thread);
        if (k < features) {
          ptx::cp_async_16(to + k, u_row + k);
          ptx::cp_async_16(to + kPadded + k, x_row + k);
        }
      }
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kStages; ++i) {
    fetch(begin + team + i * next, i);
  }
  if constexpr (kWeighted) {
    for (int k = static_cast<int>(threadIdx.x); k < kPadded; k += kTeamThreads * kTeams) {
      weight[k] = k < features ? a.norm_weight[k] : 0.0F;
    }
  }
  for (int k = features + 8 * thread; k < kPadded; k += 8 * kTeamThreads) {
    for (int i = 0; i < 2 * kStages; ++i) {
      *reinterpret_cast<uint4*>(ring + i * kPadded + k) = make_uint4(0, 0, 0, 0);
    }
  }
  float next_rstd = begin + team < end ? a.rstd[begin + team] : 0.0F;
  ptx::cp_async_wait<kStages - 1>();
  __syncthreads();
  const auto weigh = [&](float2& values, int i) {
    if constexpr (kWeighted) {
      const float2 g = reinterpret_cast<const float2*>(weight)[kTeamThreads * i + thread];
      values = {__fmul_rn(values.x, g.x), __fmul_rn(values.y, g.y)};
    }
  };
  const int left = features - 2 * thread;  // of the row, from this thread's first input on
  float2 sums[kSteps] = {};
  int slot = 0;
  int parity = 0;
  for (std::int64_t row = begin + team; row < end; row += next) {
    const float rstd = next_rstd;
    if (row + next < end) {
      next_rstd = a.rstd[row + next];
    }
    const auto* const words = reinterpret_cast<const std::uint32_t*>(ring + slot * 2 * kPadded) + thread;
    std::uint32_t u[kSteps];
    std::uint32_t x[kSteps];
    float2 acc = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      u[i] = words[kTeamThreads * i];
      x[i] = words[kTeamThreads * i + kPadded / 2];
      float2 grad = from_word<kType>(u[i]);
      const float2 value = from_word<kType>(x[i]);
      sums[i].x = __fmaf_rn(grad.x, __fmul_rn(value.x, rstd), sums[i].x);
      sums[i].y = __fmaf_rn(grad.y, __fmul_rn(value.y, rstd), sums[i].y);
      weigh(grad, i);
      acc.x = __fadd_rn(acc.x, __fmul_rn(grad.x, value.x));
      acc.y = __fadd_rn(acc.y, __fmul_rn(grad.y, value.y));
    }
    float* const buffer = accumulators + (parity * kTeams + team) * kLanes;
    parity ^= 1;
    reinterpret_cast<float2*>(buffer)[thread] = acc;
    const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
    const float share = __fdiv_rn(cube, static_cast<float>(features));
    ptx::cp_async_wait<kStages - 2>();
    ptx::named_barrier(1 + static_cast<unsigned>(team), kTeamThreads);
    fetch(row + kStages * next, slot);
    slot = slot + 1 == kStages ? 0 : slot + 1;
    if (a.grad_x == nullptr) {
      continue;
    }
    const float along = __fmul_rn(share, tree_sum(buffer, thread % 32));
    auto* const to =
        reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(a.grad_x) + row * features) + thread;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      ptx::opaque(u[i]);  // else the floats of the first pass stay in registers
      ptx::opaque(x[i]);
      float2 grad = from_word<kType>(u[i]);
      const float2 value = from_word<kType>(x[i]);
      weigh(grad, i);
      const float low = __fsub_rn(__fmul_rn(rstd, grad.x), __fmul_rn(along, value.x));
      const float high = __fsub_rn(__fmul_rn(rstd, grad.y), __fmul_rn(along, value.y));
      const std::uint32_t pair =
          kType == DataType::bfloat16 ? ptx::pack_bfloat16(low, high) : ptx::pack_float16(low, high);
      if (kLanes * i < left) {
        to[kTeamThreads * i] = pair;
      }
    }
  }
  if (a.grad_norm_weight == nullptr) {
    return;
  }
  // The teams' sums, one after the other, in the rings' place.
  auto* const of_teams = reinterpret_cast<float*>(dynamic_shared());  // [kTeams][K]
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (kLanes * i < left) {
      reinterpret_cast<float2*>(of_teams + team * features)[kTeamThreads * i + thread] = sums[i];
    }
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < features; k += kTeamThreads * kTeams) {
    float sum = of_teams[k];
#pragma unroll
    for (int i = 1; i < kTeams; ++i) {
      sum = __fadd_rn(sum, of_teams[i * features + k]);
    }
    a.grad_norm_weight[part * features + k] = sum;
  }
}

/// A block for each part.
template <DataType kType, bool kWeighted, int kSteps, int kTeams, int kStages, int kBlocks>
void launch_norm_backward_lanes(const NormBackward& args, bool in_turn, Stream stream) {
  constexpr unsigned kRowBytes = kLanes * kSteps * 2;
  constexpr unsigned kBytes = kTeams * kStages * 2 * kRowBytes + (kWeighted ? 2 * kRowBytes : 0) +
                              2 * kTeams * kLanes * static_cast<unsigned>(sizeof(float));
  launch<norm_backward_lanes_kernel<kType, kWeighted, kSteps, kTeams, kStages, kBlocks>>(
      "norm_backward_lanes",
      {.grid = {static_cast<unsigned>(args.parts)}, .block = {kTeamThreads * kTeams}, .shared_bytes = kBytes},
      stream, args, in_turn);
}

}  // namespace trit::cuda

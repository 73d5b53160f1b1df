// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm with rows in registers: a thread holds two whole accumulators of lane_sum, or a
// part of them, so that products need no shared memory.
//
//   a team takes a row: kSegments times 128 threads. Thread t of segment s holds inputs 256 i + 2 t and + 1 of the
//   steps i = kSteps s .. kSteps (s + 1) - 1: of u and x as they are, and of dg's sums over all rows of the team.
//   A segment goes on with the accumulators of the one before it, since the order of additions is fixed.
//
//   shared   the next row [warp][u, x][kSteps][64], 16 bits: what the warp's threads hold of it
//            g [256 kSteps kSegments], fp32
//            accumulators [2][kTeams][256]: two, since a thread may be one row ahead of another
//
// What lies beyond a row of K inputs is 0: its products add nothing, so that no step needs a branch.
//
// A warp copies what it holds itself, and copies again as soon as it has read that: a row is under way at all times, and
// no barrier is needed for it. (Two are slower: docs/notes/cuda-backward.md.) A row takes one barrier of its team,
// before which the accumulators are complete.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "cuda/common/launch.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {

inline constexpr int kSegmentThreads = kLanes / 2;

/// in_features <= 256 kSteps kSegments; kBlocks: of a multiprocessor. Team i of all takes rows i, i + teams, ...:
/// all teams read neighbouring rows.
template <DataType kType, bool kWeighted, int kSteps, int kSegments, int kTeams, int kBlocks,
          bool kWeightInShared>
__global__ __launch_bounds__(kSegmentThreads* kSegments* kTeams,
                             kBlocks) void norm_backward_lanes_kernel(const NormBackward a) {
  constexpr int kPadded = kLanes * kSteps * kSegments;
  constexpr int kTeamThreads = kSegmentThreads * kSegments;
  constexpr int kWarpWords = 2 * kSteps * 32;  // u, then x
  static_assert(kTeams * kSegments <= 15, "a hardware barrier for each");
  const int features = static_cast<int>(a.in_features);
  const int team = static_cast<int>(threadIdx.x) / kTeamThreads;
  const int segment = static_cast<int>(threadIdx.x) % kTeamThreads / kSegmentThreads;
  const int thread = static_cast<int>(threadIdx.x) % kSegmentThreads;
  const int lane = thread % 32;
  auto* const rows = reinterpret_cast<std::uint32_t*>(dynamic_shared());
  auto* const weight = reinterpret_cast<float*>(rows + kTeams * kSegments * 4 * kWarpWords);
  auto* const accumulators = weight + (kWeightInShared ? kPadded : 0);
  std::uint32_t* const held = rows + static_cast<int>(threadIdx.x) / 32 * kWarpWords;
  const int first_step = segment * kSteps;
  const auto tokens = static_cast<int>(a.tokens);
  const int next = kTeams * static_cast<int>(gridDim.x);
  const int first_row = kTeams * static_cast<int>(blockIdx.x) + team;
  // A step of a warp is 128 bytes in a row: eight lanes copy it, so that one instruction takes four steps.
  const int copied_step = lane / 8;
  const int copied = kLanes * (first_step + copied_step) + thread / 32 * 64 + lane % 8 * 8;
  const auto fetch = [&](int row) {
    if (row < tokens) {
      const auto* const u_row =
          static_cast<const std::uint16_t*>(a.grad) + std::int64_t{row} * features + copied;
      const auto* const x_row =
          static_cast<const std::uint16_t*>(a.x) + std::int64_t{row} * features + copied;
      std::uint32_t* const to = held + 4 * lane;
#pragma unroll
      for (int i = 0; i < (kSteps + 3) / 4; ++i) {
        if (copied + 4 * kLanes * i < features && (4 * i + 4 <= kSteps || 4 * i + copied_step < kSteps)) {
          ptx::cp_async_16(to + 128 * i, u_row + 4 * kLanes * i);
          ptx::cp_async_16(to + 128 * i + kWarpWords / 2, x_row + 4 * kLanes * i);
        }
      }
    }
    ptx::cp_async_commit();
  };
  fetch(first_row);
  if constexpr (kWeightInShared) {
    for (int k = static_cast<int>(threadIdx.x); k < kPadded; k += kTeamThreads * kTeams) {
      weight[k] = k < features ? a.norm_weight[k] : 0.0F;
    }
  }
  const int left =
      features - kLanes * first_step - 2 * thread;  // of the row, from this thread's first input on
  for (int i = 0; i < kSteps; ++i) {
    if (kLanes * i >= left) {
      held[32 * i + lane] = 0;
      held[32 * i + lane + kWarpWords / 2] = 0;
    }
  }
  float next_rstd = first_row < tokens ? a.rstd[first_row] : 0.0F;
  __syncthreads();
  const auto* const own_weight = reinterpret_cast<const float2*>(kWeightInShared ? weight : a.norm_weight) +
                                 kSegmentThreads * first_step + thread;
  const auto weigh = [&](float2& values, int i) {
    if constexpr (kWeighted) {
      float2 g = {};
      if (kWeightInShared || kLanes * i < left) {
        g = own_weight[kSegmentThreads * i];
      }
      values = {__fmul_rn(values.x, g.x), __fmul_rn(values.y, g.y)};
    }
  };
  float2 sums[kSteps] = {};
  int parity = 0;
  for (int row = first_row; row < tokens; row += next) {
    const float rstd = next_rstd;
    if (row + next < tokens) {
      next_rstd = a.rstd[row + next];
    }
    std::uint32_t u[kSteps];
    std::uint32_t x[kSteps];
    ptx::cp_async_wait<0>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      u[i] = held[32 * i + lane];
      x[i] = held[32 * i + lane + kWarpWords / 2];
    }
    __syncwarp();
    fetch(row + next);
    auto& of_row = reinterpret_cast<float2*>(accumulators + (parity * kTeams + team) * kLanes)[thread];
    const auto add_to_sums = [&](int i, float2 grad, float2 value) {
      sums[i].x = __fmaf_rn(grad.x, __fmul_rn(value.x, rstd), sums[i].x);
      sums[i].y = __fmaf_rn(grad.y, __fmul_rn(value.y, rstd), sums[i].y);
    };
    const auto add_product = [&](float2& acc, int i, float2 grad, float2 value) {
      weigh(grad, i);
      acc.x = __fadd_rn(acc.x, __fmul_rn(grad.x, value.x));
      acc.y = __fadd_rn(acc.y, __fmul_rn(grad.y, value.y));
    };
    if constexpr (kSegments == 1) {
      float2 acc = {};
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const float2 grad = from_word<kType>(u[i]);
        const float2 value = from_word<kType>(x[i]);
        add_to_sums(i, grad, value);
        add_product(acc, i, grad, value);
      }
      of_row = acc;
    } else {
      // The first segment's accumulators come first; the others have their sums to do before theirs.
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          ptx::opaque(u[i]);
          ptx::opaque(x[i]);
        }
        if ((half == 0) == (segment == 0)) {
          float2 acc = {};
          const auto barrier = static_cast<unsigned>(1 + team * kSegments + segment);
          if (segment > 0) {
            ptx::named_barrier(barrier - 1, 2 * kSegmentThreads);
            acc = of_row;
          }
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            add_product(acc, i, from_word<kType>(u[i]), from_word<kType>(x[i]));
          }
          of_row = acc;
          if (segment + 1 < kSegments) {
            ptx::named_barrier_arrive(barrier, 2 * kSegmentThreads);
          }
        } else {
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            add_to_sums(i, from_word<kType>(u[i]), from_word<kType>(x[i]));
          }
        }
      }
    }
    const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
    const float share = __fdiv_rn(cube, static_cast<float>(features));
    ptx::named_barrier(static_cast<unsigned>((team + 1) * kSegments), kTeamThreads);
    const float* const buffer = accumulators + (parity * kTeams + team) * kLanes;
    parity ^= 1;
    if (a.grad_x == nullptr) {
      continue;
    }
    const float along = __fmul_rn(share, tree_sum(buffer, lane));
    auto* const to = reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(a.grad_x) +
                                                      std::int64_t{row} * features) +
                     kSegmentThreads * first_step + thread;
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
        to[kSegmentThreads * i] = pair;
      }
    }
  }
  if (a.grad_norm_weight == nullptr) {
    return;
  }
  float* const of_part = a.grad_norm_weight + std::int64_t{blockIdx.x} * features;
  if constexpr (kTeams == 1) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (kLanes * i < left) {
        reinterpret_cast<float2*>(of_part)[kSegmentThreads * (first_step + i) + thread] = sums[i];
      }
    }
    return;
  }
  // The teams' sums, one after the other, in the rows' place.
  auto* const of_teams = reinterpret_cast<float*>(dynamic_shared());  // [kTeams][K]
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (kLanes * i < left) {
      reinterpret_cast<float2*>(of_teams + team * features)[kSegmentThreads * (first_step + i) + thread] =
          sums[i];
    }
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < features; k += kTeamThreads * kTeams) {
    float sum = of_teams[k];
#pragma unroll
    for (int i = 1; i < kTeams; ++i) {
      sum = __fadd_rn(sum, of_teams[i * features + k]);
    }
    of_part[k] = sum;
  }
}

/// kWeightInShared: else g comes from L2, where a GPU has too little shared memory for it.
template <DataType kType, bool kWeighted, int kSteps, int kSegments, int kTeams, int kBlocks,
          bool kWeightInShared = true>
struct NormBackwardLanes {
  static constexpr int kPadded = kLanes * kSteps * kSegments;  // the longest row
  static constexpr bool kInShared = kWeighted && kWeightInShared;
  static constexpr int kSharedBytes =
      (kTeams * 2 * 2 + (kInShared ? 4 : 0)) * kPadded + 2 * kTeams * kLanes * 4;
  /// A block for each part.
  static void run(const NormBackward& args, Stream stream) {
    launch<norm_backward_lanes_kernel<kType, kWeighted, kSteps, kSegments, kTeams, kBlocks, kInShared>>(
        "norm_backward_lanes",
        {.grid = {static_cast<unsigned>(args.parts)},
         .block = {kSegmentThreads * kSegments * kTeams},
         .shared_bytes = kSharedBytes},
        stream, args);
  }
};

}  // namespace trit::cuda

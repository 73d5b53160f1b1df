// SPDX-License-Identifier: MIT
//
// The backward of RMSNorm where a thread holds whole accumulators of lane_sum: a team of 256 / kHeld threads
// takes a row, thread t the inputs kHeld t .. of each 256, in registers. A block has several teams, each with
// a barrier of its own.
#pragma once

#include "cuda/common/float_bits.cuh"
#include "cuda/common/lane_sum.cuh"
#include "trit/cuda_backward.h"

namespace trit::cuda {

/// kHeld elements of 16 bits.
template <int kHeld>
struct HeldBits {
  std::uint32_t words[kHeld / 2];
};

#if defined(__CUDACC__)
template <int kHeld, bool kHint>
__device__ __forceinline__ void load_once(HeldBits<kHeld>& to, const void* from) {
  if constexpr (kHeld == 2 && kHint) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.u32 %0, [%1];" : "=r"(to.words[0]) : "l"(from));
  } else if constexpr (kHeld == 4 && kHint) {
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0, %1}, [%2];"
                 : "=r"(to.words[0]), "=r"(to.words[1])
                 : "l"(from));
  } else if constexpr (kHeld == 2) {
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(to.words[0]) : "l"(from));
  } else if constexpr (kHeld == 4) {
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                 : "=r"(to.words[0]), "=r"(to.words[1])
                 : "l"(from));
  } else {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.words[0]), "=r"(to.words[1]), "=r"(to.words[2]), "=r"(to.words[3])
                 : "l"(from));
  }
}
#endif

template <DataType kType, int kHeld>
__device__ __forceinline__ void unpack(const HeldBits<kHeld>& bits, float (&values)[kHeld]) {
#pragma unroll
  for (int i = 0; i < kHeld / 2; ++i) {
    if constexpr (kType == DataType::bfloat16) {
      values[2 * i] = __uint_as_float(bits.words[i] << 16U);
      values[2 * i + 1] = __uint_as_float(bits.words[i] & 0xffff0000U);
    } else {
      values[2 * i] = ptx::from_float16(static_cast<std::uint16_t>(bits.words[i]));
      values[2 * i + 1] = ptx::from_float16(static_cast<std::uint16_t>(bits.words[i] >> 16U));
    }
  }
}

template <int kHeld>
__device__ __forceinline__ void weigh_held(float (&values)[kHeld], const float* weight) {
  if constexpr (kHeld == 2) {
    const float2 g = *reinterpret_cast<const float2*>(weight);
    values[0] = __fmul_rn(values[0], g.x);
    values[1] = __fmul_rn(values[1], g.y);
  } else {
#pragma unroll
    for (int i = 0; i < kHeld; i += 4) {
      const float4 g = *reinterpret_cast<const float4*>(weight + i);
      values[i] = __fmul_rn(values[i], g.x);
      values[i + 1] = __fmul_rn(values[i + 1], g.y);
      values[i + 2] = __fmul_rn(values[i + 2], g.z);
      values[i + 3] = __fmul_rn(values[i + 3], g.w);
    }
  }
}

/// The sum over the 256 accumulators of a warp whose lane l holds 8 l .. 8 l + 7. At each exchange a lane
/// gives away what it does not go on with.
__device__ __forceinline__ float warp_sum(const float (&held)[8], int lane) {
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[i] = held[i];
  }
#pragma unroll
  for (int half = 4, step = 16; half >= 1; half /= 2, step /= 2) {
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float mine = upper ? v[half + i] : v[i];
      const float other = upper ? v[i] : v[half + i];
      v[i] = add(mine, __shfl_xor_sync(0xffffffffU, other, step));
    }
  }
  // Lane l has accumulator 8 (l % 4) + 4 b4 + 2 b3 + b2, b the bits of l.
  float sum = v[0];
#pragma unroll
  for (int i = 0; i < 5; ++i) {
    constexpr int kSteps[5] = {2, 1, 16, 8, 4};
    sum = add(sum, __shfl_xor_sync(0xffffffffU, sum, kSteps[i]));
  }
  return sum;
}

/// kSharedWeight: g is copied to shared memory. kAhead: a row's registers are filled with the team's next row as
/// soon as dx no longer needs them.
template <DataType kType, bool kWeighted, int kHeld, int kSteps, int kTeams, int kBlocks, bool kAhead,
          bool kSharedWeight, bool kInterleave, int kHint>
__global__ __launch_bounds__(kLanes / kHeld * kTeams, kBlocks) void norm_lanes_kernel(const NormBackward a) {
  constexpr int kTeamThreads = kLanes / kHeld;
  const int features = static_cast<int>(a.in_features);
  auto* const buffers = reinterpret_cast<float*>(dynamic_shared());  // [2][kTeams][256]
  auto* const weight_copy = buffers + (kHeld == 8 ? 0 : 2 * kTeams * kLanes);
  const int team = static_cast<int>(threadIdx.x) / kTeamThreads;
  const int thread = static_cast<int>(threadIdx.x) % kTeamThreads;
  const std::int64_t part = blockIdx.x;
  const std::int64_t begin = kInterleave ? part * kTeams : part * a.tokens / gridDim.x;
  const std::int64_t end = kInterleave ? a.tokens : (part + 1) * a.tokens / gridDim.x;
  const std::int64_t next = kInterleave ? std::int64_t{kTeams} * gridDim.x : kTeams;
  const float* weight = a.norm_weight;
  float sums[kSteps][kHeld] = {};
  HeldBits<kHeld> u[kSteps] = {};
  HeldBits<kHeld> x[kSteps] = {};
  const auto load = [&](std::int64_t row, int i) {
    const int k = kLanes * i + kHeld * thread;
    if (k < features) {
      load_once<kHeld, (kHint & 1) != 0>(u[i],
                                         static_cast<const std::uint16_t*>(a.grad) + row * features + k);
      load_once<kHeld, (kHint & 1) != 0>(x[i], static_cast<const std::uint16_t*>(a.x) + row * features + k);
    }
  };
  if (kAhead && begin + team < end) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      load(begin + team, i);
    }
  }
  if constexpr (kWeighted && kSharedWeight) {
    for (int k = static_cast<int>(threadIdx.x); k < features; k += static_cast<int>(blockDim.x)) {
      weight_copy[k] = a.norm_weight[k];
    }
    weight = weight_copy;
    __syncthreads();
  }
  int parity = 0;
  for (std::int64_t row = begin + team; row < end; row += next) {
    if constexpr (!kAhead) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        load(row, i);
      }
    }
    const float rstd = a.rstd[row];
    float acc[kHeld] = {};
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = kLanes * i + kHeld * thread;
      if (k < features) {
        float grad[kHeld];
        float value[kHeld];
        unpack<kType>(u[i], grad);
        unpack<kType>(x[i], value);
#pragma unroll
        for (int j = 0; j < kHeld; ++j) {
          sums[i][j] = __fmaf_rn(grad[j], __fmul_rn(value[j], rstd), sums[i][j]);
        }
        if constexpr (kWeighted) {
          weigh_held(grad, weight + k);
        }
#pragma unroll
        for (int j = 0; j < kHeld; ++j) {
          acc[j] = __fadd_rn(acc[j], __fmul_rn(grad[j], value[j]));
        }
      }
    }
    float sum = 0;
    if constexpr (kHeld == 8) {
      sum = warp_sum(acc, thread);
    } else {
      float* const buffer = buffers + (parity * kTeams + team) * kLanes;
#pragma unroll
      for (int j = 0; j < kHeld; j += 2) {
        *reinterpret_cast<float2*>(buffer + kHeld * thread + j) = {acc[j], acc[j + 1]};
      }
      ptx::named_barrier(1 + static_cast<unsigned>(team), kTeamThreads);
      sum = tree_sum(buffer, thread % 32);
      parity ^= 1;
    }
    const float cube = __fmul_rn(__fmul_rn(rstd, rstd), rstd);
    const float along = __fmul_rn(__fdiv_rn(cube, static_cast<float>(features)), sum);
    const bool more = kAhead && row + next < end;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int k = kLanes * i + kHeld * thread;
      if (k < features) {
        if (a.grad_x != nullptr) {
          float grad[kHeld];
          float value[kHeld];
#pragma unroll
          for (int j = 0; j < kHeld / 2; ++j) {  // else the floats of the first pass stay in registers
            ptx::opaque(u[i].words[j]);
            ptx::opaque(x[i].words[j]);
          }
          unpack<kType>(u[i], grad);
          unpack<kType>(x[i], value);
          if constexpr (kWeighted) {
            weigh_held(grad, weight + k);
          }
          HeldBits<kHeld> out;
#pragma unroll
          for (int j = 0; j < kHeld; j += 2) {
            const float low = __fsub_rn(__fmul_rn(rstd, grad[j]), __fmul_rn(along, value[j]));
            const float high = __fsub_rn(__fmul_rn(rstd, grad[j + 1]), __fmul_rn(along, value[j + 1]));
            out.words[j / 2] =
                kType == DataType::bfloat16 ? ptx::pack_bfloat16(low, high) : ptx::pack_float16(low, high);
          }
          auto* const to = static_cast<std::uint16_t*>(a.grad_x) + row * features + k;
          if constexpr (kHeld == 2) {
            if constexpr ((kHint & 2) != 0) {
              __stcs(reinterpret_cast<unsigned*>(to), out.words[0]);
            } else {
              *reinterpret_cast<std::uint32_t*>(to) = out.words[0];
            }
          } else if constexpr (kHeld == 4) {
            if constexpr ((kHint & 2) != 0) {
              __stcs(reinterpret_cast<uint2*>(to), make_uint2(out.words[0], out.words[1]));
            } else {
              *reinterpret_cast<uint2*>(to) = make_uint2(out.words[0], out.words[1]);
            }
          } else {
            *reinterpret_cast<uint4*>(to) =
                make_uint4(out.words[0], out.words[1], out.words[2], out.words[3]);
          }
        }
        if (more) {
          load(row + next, i);
        }
      }
    }
  }
  if (a.grad_norm_weight == nullptr) {
    return;
  }
  // The teams' sums, one after the other.
  auto* const of_teams = reinterpret_cast<float*>(dynamic_shared());  // [kTeams][K]
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int k = kLanes * i + kHeld * thread;
    if (k < features) {
#pragma unroll
      for (int j = 0; j < kHeld; j += 2) {
        *reinterpret_cast<float2*>(of_teams + team * features + k + j) = {sums[i][j], sums[i][j + 1]};
      }
    }
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < features; k += static_cast<int>(blockDim.x)) {
    float sum = of_teams[k];
#pragma unroll
    for (int i = 1; i < kTeams; ++i) {
      sum = __fadd_rn(sum, of_teams[i * features + k]);
    }
    a.grad_norm_weight[part * features + k] = sum;
  }
}

}  // namespace trit::cuda

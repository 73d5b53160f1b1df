// SPDX-License-Identifier: MIT
//
// The two sums of absmean: a row's |w| in fp32, by a block of 256 threads or by a warp, and the rows' sums in fp64, by a
// block.
#pragma once

#include "cuda/common/lane_sum.cuh"

namespace trit::cuda {

// Loads in flight per thread: 8 x 4 bytes x 2048 threads are 64 KiB per multiprocessor, four times what hides
// 700 ns of HBM latency at 3.3 TB/s over 132 of them.
inline constexpr int kAbsSumInFlight = 8;

// Written so that a NaN passes.
__device__ __forceinline__ float beta_of(float mean) { return mean < 1e-5F ? 1e-5F : mean; }

/// lane_sum |row[0 .. in_features - 1]|, in every thread. `accumulators` [256] are shared memory that no
/// thread reads any more.
__device__ __forceinline__ float abs_sum(const float* row, std::int64_t in_features, float* accumulators) {
  const int thread = static_cast<int>(threadIdx.x);
  float acc = 0;
  for (std::int64_t first = thread; first < in_features; first += std::int64_t{kAbsSumInFlight} * kLanes) {
    float v[kAbsSumInFlight];
#pragma unroll
    for (int i = 0; i < kAbsSumInFlight; ++i) {
      const std::int64_t k = first + i * kLanes;
      v[i] = k < in_features ? row[k] : 0.0F;  // + 0 changes no bit of a sum of magnitudes
    }
#pragma unroll
    for (int i = 0; i < kAbsSumInFlight; ++i) {
      acc = __fadd_rn(acc, __uint_as_float(__float_as_uint(v[i]) & 0x7fffffffU));
    }
  }
  accumulators[thread] = acc;
  __syncthreads();
  return tree_sum(accumulators, thread % 32);
}

/// lane_sum |values[0 .. count - 1]| by a warp, in every lane: accumulator j is lane j mod 32's number j / 32.
__device__ __forceinline__ float warp_abs_sum(const float* values, std::int64_t count, int lane) {
  float acc[kWarps] = {};
  for (std::int64_t first = lane; first < count; first += kLanes) {
    float v[kWarps];
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      v[i] = first + 32 * i < count ? values[first + 32 * i] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      acc[i] = __fadd_rn(acc[i], __uint_as_float(__float_as_uint(v[i]) & 0x7fffffffU));
    }
  }
  return tree_sum(acc);
}

/// The same where `count` is a multiple of 4 and `values` aligned to 16 bytes: accumulators 4 l + c and 128 + 4 l + c are
/// lane l's, 8 loads of 16 bytes in flight. The tree adds the same pairs.
__device__ __forceinline__ float warp_abs_sum_vector(const float* values, std::int64_t count, int lane) {
  float acc[2][4] = {};
  for (std::int64_t first = 4 * lane; first < count; first += 4 * kLanes) {
    float4 v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      v[i] = first + 128 * i < count ? *reinterpret_cast<const float4*>(values + first + 128 * i) : float4{};
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float of_load[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        acc[i % 2][c] = __fadd_rn(acc[i % 2][c], __uint_as_float(__float_as_uint(of_load[c]) & 0x7fffffffU));
      }
    }
  }
  float sums[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    sums[c] = __fadd_rn(acc[0][c], acc[1][c]);
#pragma unroll
    for (int step = 16; step >= 1; step /= 2) {
      sums[c] = __fadd_rn(sums[c], __shfl_xor_sync(0xffffffffU, sums[c], step));
    }
  }
  return __fadd_rn(__fadd_rn(sums[0], sums[2]), __fadd_rn(sums[1], sums[3]));
}

/// beta of the whole matrix, in every thread, from its rows' sums. `accumulators` as above.
__device__ __forceinline__ float beta_of_rows(const float* row_sums, std::int64_t out_features,
                                              std::int64_t in_features, double* accumulators) {
  const int thread = static_cast<int>(threadIdx.x);
  double acc = 0;
#pragma unroll 8
  for (std::int64_t row = thread; row < out_features; row += kLanes) {
    acc = __dadd_rn(acc, static_cast<double>(__ldcg(row_sums + row)));
  }
  accumulators[thread] = acc;
  __syncthreads();
  const double sum = tree_sum(accumulators, thread % 32);
  const double count = __dmul_rn(static_cast<double>(out_features), static_cast<double>(in_features));
  return beta_of(__double2float_rn(__ddiv_rn(sum, count)));
}

}  // namespace trit::cuda

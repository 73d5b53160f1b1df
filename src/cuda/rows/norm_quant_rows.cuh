// SPDX-License-Identifier: MIT
//
// norm_quant of many rows: a warp per row. Lane l of the warp holds accumulators 8 l .. 8 l + 7 of lane_sum,
// so that it takes 8 neighbours at a time, 16 bytes of 16-bit inputs, and gives 8 bytes of q.
#pragma once

#include "cuda/rows/norm_quant_scale.cuh"

namespace trit::cuda {

inline constexpr int kRowsWarps = 2;
inline constexpr int kRowsHeaderBytes = kLanes * 4;  // per warp: accumulators, then its row of x
inline constexpr int kRowsPerLane = kLanes / 32;     // inputs of a lane in a step

/// x and x g of inputs k .. k + 7; beyond the row they are 0, which adds and quantises to 0.
template <DataType kType>
__device__ __forceinline__ void load_eight(const FloatBits<kType>* x, const float* g, int k, int count,
                                           float (&values)[kRowsPerLane], float (&weighted)[kRowsPerLane]) {
  if (k + kRowsPerLane <= count) {
    constexpr int kVectors = static_cast<int>(sizeof(FloatBits<kType>)) / 2;
    uint4 vectors[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      vectors[i] = reinterpret_cast<const uint4*>(x + k)[i];
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::uint32_t words[4] = {vectors[i].x, vectors[i].y, vectors[i].z, vectors[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (kType == DataType::float32) {
          values[4 * i + j] = __uint_as_float(words[j]);
        } else {
          values[2 * j] = from_bits<kType>(static_cast<std::uint16_t>(words[j]));
          values[2 * j + 1] = from_bits<kType>(static_cast<std::uint16_t>(words[j] >> 16U));
        }
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kRowsPerLane; ++j) {
      values[j] = k + j < count ? from_bits<kType>(x[k + j]) : 0.0F;
    }
  }
#pragma unroll
  for (int j = 0; j < kRowsPerLane; ++j) {
    weighted[j] = g != nullptr && k + j < count ? __fmul_rn(values[j], g[k + j]) : values[j];
  }
}

template <DataType kType, bool kNorm>
__global__ __launch_bounds__(32 * kRowsWarps) void norm_quant_rows_kernel(const NormQuantArguments a) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowsWarps + threadIdx.y;
  std::uint8_t* const own =
      dynamic_shared() + static_cast<int>(threadIdx.y) *
                             (kRowsHeaderBytes + a.row_bytes * static_cast<int>(sizeof(FloatBits<kType>)));
  auto* accumulators = reinterpret_cast<float*>(own);
  auto* x = reinterpret_cast<FloatBits<kType>*>(own + kRowsHeaderBytes);
  const float* g = kNorm ? a.norm_weight : nullptr;
  ptx::wait_for_predecessor();
  ptx::let_successor_start();
  if (row >= a.tokens) {
    return;
  }
  stage_row(x, static_cast<const FloatBits<kType>*>(a.x) + row * a.x_stride, a.in_features, lane, 32);
  __syncwarp();

  float acc[kRowsPerLane] = {};
  unsigned largest = 0;  // of bits: a NaN stays the largest
  for (int k = kRowsPerLane * lane; k < a.in_features; k += kLanes) {
    float values[kRowsPerLane];
    float weighted[kRowsPerLane];
    load_eight<kType>(x, g, k, a.in_features, values, weighted);
#pragma unroll
    for (int j = 0; j < kRowsPerLane; ++j) {
      acc[j] = kNorm ? __fmaf_rn(values[j], values[j], acc[j]) : 0.0F;
      largest = max(largest, __float_as_uint(weighted[j]) & 0x7fffffffU);
    }
  }
  largest = __reduce_max_sync(0xffffffffU, largest);
  float squares = 0;
  if constexpr (kNorm) {
#pragma unroll
    for (int j = 0; j < kRowsPerLane; ++j) {
      accumulators[kRowsPerLane * lane + j] = acc[j];
    }
    __syncwarp();
    squares = tree_sum(accumulators, lane);
  }
  const TokenScale scale = token_scale<kNorm>(a, squares, __uint_as_float(largest));
  if (lane == 0) {
    store_token_scale(a, row, scale);
  }
  for (int k = kRowsPerLane * lane; k < a.row_bytes; k += kLanes) {
    float values[kRowsPerLane];
    float weighted[kRowsPerLane];
    load_eight<kType>(x, g, k, a.in_features, values, weighted);
    uint2 bytes = {0, 0};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bytes.x |= rounded_byte(__fmul_rn(weighted[j], scale.factor)) << (8 * j);
      bytes.y |= rounded_byte(__fmul_rn(weighted[j + 4], scale.factor)) << (8 * j);
    }
    *reinterpret_cast<uint2*>(a.q + row * a.row_bytes + k) = scale.good ? bytes : uint2{0, 0};
  }
}

}  // namespace trit::cuda

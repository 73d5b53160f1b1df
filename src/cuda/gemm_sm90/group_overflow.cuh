// SPDX-License-Identifier: MIT
//
// Computes outputs with float32 group scales again that are not finite, without the weights' factor of 64 in the sums.
// With it they overflow from 2^122 on, where scales are about 2^100 or more. It is slow: a thread computes its outputs one
// after another.
#pragma once

#include "cuda/common/fragments.cuh"
#include "cuda/common/group_scales.cuh"
#include "cuda/gemm_sm90/parameters.h"

namespace trit::cuda {

/// Weight [row][k] of frag64x128.
__device__ __forceinline__ std::int32_t weight_at(const std::uint8_t* weights, std::int32_t k_tiles,
                                                  std::int32_t row, std::int32_t k) {
  const std::int32_t lane = row % 8 * 4 + k % 16 / 4;
  const std::int32_t word = row % kTileRows / kStripRows * kStripBytes + lane * 16 + k % kTileInputs / 32 * 4;
  const std::int32_t a_register = k % 32 / 16 * 2 + row % kStripRows / 8;
  const std::uint8_t byte = weights[tile_offset(row / kTileRows, k / kTileInputs, k_tiles) + word + k % 4];
  return static_cast<std::int8_t>(static_cast<std::uint8_t>(byte << (2 * a_register))) >> kCodeShift;
}

/// acc of one output: fma((float)isum, w, acc), group after group.
__device__ __forceinline__ float plain_group_sum(const GemmSm90Parameters& p, std::int32_t row,
                                                 std::int32_t token) {
  const Groups& groups = p.groups;
  const std::int8_t* const q = p.q + token * p.q_stride;
  const auto* const scales = static_cast<const float*>(groups.scale) +
                             std::int64_t{row / kTileRows} * groups.count * kTileRows +
                             scale_place(row % kTileRows);
  const std::int32_t inputs = groups.segment * groups.per_group;
  // A model that has diverged has a scale of NaN in many rows: nothing has to be added up for those.
#pragma unroll 1
  for (std::int32_t g = 0; g < groups.count; ++g) {
    const float scale = scales[std::int64_t{g} * kTileRows];
    if (scale != scale) {
      return scale;
    }
  }
  float acc = 0.0F;
  std::int32_t k = 0;
#pragma unroll 1
  for (std::int32_t g = 0; g < groups.count; ++g) {
    std::int32_t isum = 0;
#pragma unroll 1
    for (const std::int32_t end = min(k + inputs, p.in_features); k < end; ++k) {
      isum += weight_at(p.weights, p.k_tiles, row, k) * q[k];
    }
    acc = __fmaf_rn(static_cast<float>(isum), scales[std::int64_t{g} * kTileRows], acc);
  }
  return acc;
}

/// Values kFirst and on of repair_overflow.
template <class T, int kFirst>
__device__ __forceinline__ void repair_values(const GemmSm90Parameters& p, std::int32_t row,
                                              std::int32_t token,
                                              std::int32_t (&acc)[T::kRowBlocks][T::kAccumulators]) {
  constexpr std::int32_t kExponent = 0x7f800000;  // all ones in infinities and NaN
  constexpr int kEnd = kFirst + 32 < T::kAccumulators ? kFirst + 32 : T::kAccumulators;
  std::uint32_t wrong = 0;  // a bit for each value
#pragma unroll
  for (int i = kFirst; i < kEnd; ++i) {
    wrong |= ((acc[0][i] & kExponent) == kExponent ? 1U : 0U) << (i - kFirst);
  }
#pragma unroll 1
  for (int i = kFirst; wrong != 0; ++i, wrong >>= 1U) {
    const std::int32_t own_row = row + i / 2 % 2 * 8;
    const std::int32_t own_token = token + i / 4 * 8 + i % 2;
    if ((wrong & 1U) == 0 || own_row >= p.out_features || own_token >= p.tokens) {
      continue;
    }
    const auto sum = static_cast<std::int32_t>(__float_as_uint(plain_group_sum(p, own_row, own_token)));
#pragma unroll
    for (int j = kFirst; j < kEnd; ++j) {  // registers have no index
      acc[0][j] = i == j ? sum : acc[0][j];
    }
  }
  if constexpr (kEnd < T::kAccumulators) {
    repair_values<T, kEnd>(p, row, token, acc);
  }
}

/// `acc`: bits of float32, as multiply_groups leaves them in a thread whose first row is `row` and whose first token
/// is `token`. All of its warp call. An instruction a value where all are finite.
template <class T>
__device__ __forceinline__ void repair_overflow(const GemmSm90Parameters& p, std::int32_t row,
                                                std::int32_t token,
                                                std::int32_t (&acc)[T::kRowBlocks][T::kAccumulators]) {
  float largest = 0.0F;  // or NaN
#pragma unroll
  for (int i = 0; i < T::kAccumulators; ++i) {
    largest = ptx::max_magnitude(largest, __int_as_float(acc[0][i]));
  }
  if (!(largest < __int_as_float(0x7f800000))) {
    repair_values<T, 0>(p, row, token, acc);
  }
  __syncwarp();  // what follows needs the whole warp
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// A warp of decode with group scales (whole_groups.cu): the products of 16 rows and up to 16 tokens, and their sums over the
// groups, in registers.
#pragma once

#include "cuda/common/group_scales.cuh"
#include "cuda/decode/tile.cuh"

namespace trit::cuda {

/// A lane has rows g and g + 8, g = lane / 4, and tokens 2 (lane % 4) and + 1 of each 8: element i of four is row
/// g + i / 2 * 8, token + i % 2.
template <int kTokenTiles>
struct LaneSums {
  std::int32_t of[kTokenTiles][4];

  /// Sums that start from this are floats of 1.5 * 2^23 + the sum, if they stay below 2^22: a conversion by the FMA
  /// pipe, which has less to do than the ALU.
  static constexpr std::int32_t kFloatOrigin = 0x4b400000;

  __device__ __forceinline__ void start(std::int32_t origin) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        of[t][i] = origin;
      }
    }
  }
};

/// 64 inputs: two words of weights.
template <int kTokenTiles>
struct LaneInputs64 {
  std::uint32_t x[kTokenTiles][4];

  __device__ __forceinline__ void load(std::uint32_t address, unsigned tile_bytes) {
#pragma unroll
    for (unsigned t = 0; t < kTokenTiles; ++t) {
      ptx::ldmatrix_x4(x[t], address + t * tile_bytes);
    }
  }
  __device__ __forceinline__ void multiply(LaneSums<kTokenTiles>& sums, std::uint32_t codes, int word) const {
    std::uint32_t a[4];
    unpack(a, codes);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      ptx::mma_m16n8k32(sums.of[t], a, x[t][2 * word], x[t][2 * word + 1]);
    }
  }
};

/// The sums over the groups: acc = fma((float)isum, w, acc).
template <int kTokenTiles>
struct LaneAccumulators {
  float of[kTokenTiles][4] = {};

  /// A group's sums, 64 times isum, that began from kFloatOrigin; `w`: of the two rows, the factor of 64 in it.
  __device__ __forceinline__ void add(const LaneSums<kTokenTiles>& sums, const float (&w)[2]) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float isum = __fsub_rn(__int_as_float(sums.of[t][i]), __int_as_float(sums.kFloatOrigin));
        of[t][i] = __fmaf_rn(isum, w[i / 2], of[t][i]);
      }
    }
  }
  /// The same with a scale per token, and with scales to which the factor does not belong.
  __device__ __forceinline__ void add(const LaneSums<kTokenTiles>& sums, const float (&w)[kTokenTiles][4]) {
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float isum = __fsub_rn(__int_as_float(sums.of[t][i]), __int_as_float(sums.kFloatOrigin));
        of[t][i] = __fmaf_rn(__fmul_rn(isum, kWeightFactor), w[t][i], of[t][i]);
      }
    }
  }
};

/// A lane's two weight scales, neighbours.
template <bool kHalf>
__device__ __forceinline__ void load_scale_pair(const std::uint8_t* pair, float (&beta)[2]) {
  if constexpr (kHalf) {
    const auto bits = *reinterpret_cast<const std::uint32_t*>(pair);
    beta[0] = ptx::from_float16(static_cast<std::uint16_t>(bits));
    beta[1] = ptx::from_float16(static_cast<std::uint16_t>(bits >> 16U));
  } else {
    const auto two = *reinterpret_cast<const float2*>(pair);
    beta[0] = two.x;
    beta[1] = two.y;
  }
}

}  // namespace trit::cuda

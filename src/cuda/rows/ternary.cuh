// SPDX-License-Identifier: MIT
//
// A float weight to its 2-bit code.
#pragma once

#include "cuda/common/platform.cuh"
#include "trit/format.h"

namespace trit::cuda {

/// Which scale of a matrix belongs to a weight.
struct RowScales {
  std::int64_t of_row;  // scales from row to row: 0 (per tensor), 1, or the groups of a row
  unsigned group;       // inputs of a group, or 0
  __device__ __forceinline__ std::int64_t at(std::int64_t row, std::int64_t input) const {
    return row * of_row + (group == 0 ? 0U : static_cast<unsigned>(input) / group);
  }
};
inline RowScales row_scales(ScaleGranularity granularity, std::int64_t in_features, std::int64_t group) {
  return {.of_row = granularity == ScaleGranularity::tensor ? 0 : groups_of(in_features, group),
          .group = static_cast<unsigned>(group > in_features ? 0 : group)};
}

/// clamp(rint(w * inverse), -1, 1) as 2-bit two's complement, 0 where the product is NaN. rint rounds half to
/// even, so +-0.5 is 0 and the whole of it is two comparisons, false for NaN.
__device__ __forceinline__ std::uint32_t ternary_code(float w, float inverse) {
  const float scaled = __fmul_rn(w, inverse);
  return scaled > 0.5F ? 1U : (scaled < -0.5F ? 3U : 0U);
}

/// The stored byte of four neighbouring weights, the first in the low bits.
__device__ __forceinline__ std::uint32_t ternary_byte(const float4& v, float inverse) {
  return ternary_code(v.x, inverse) | ternary_code(v.y, inverse) << 2 | ternary_code(v.z, inverse) << 4 |
         ternary_code(v.w, inverse) << 6;
}

/// The same of w[0..3]; columns from `count` on are 0. `vector`: w
/// is 16-byte aligned.
__device__ __forceinline__ std::uint32_t ternary_byte(const float* w, std::int64_t count, float inverse,
                                                      bool vector) {
  if (vector && count >= 4) {
    return ternary_byte(*reinterpret_cast<const float4*>(w), inverse);
  }
  std::uint32_t byte = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    byte |= i < count ? ternary_code(w[i], inverse) << (2 * i) : 0U;
  }
  return byte;
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// Elements of 32 and 16 bits, and vectors of 16 bytes of them, as floats and back; rounded to nearest even.
#pragma once

#include <type_traits>

#include "cuda/common/ptx.cuh"
#include "trit/format.h"

namespace trit::cuda {

/// Calls function.operator()<kType>() with `type`.
template <typename Function>
void for_type(DataType type, const Function& function) {
  switch (type) {
    case DataType::float32:
      return function.template operator()<DataType::float32>();
    case DataType::bfloat16:
      return function.template operator()<DataType::bfloat16>();
    case DataType::float16:
      return function.template operator()<DataType::float16>();
  }
}

template <DataType kType>
using FloatBits = std::conditional_t<kType == DataType::float32, float, std::uint16_t>;

template <DataType kType>
__device__ __forceinline__ FloatBits<kType> to_bits(float value) {
  if constexpr (kType == DataType::float32) {
    return value;
  } else {
    return kType == DataType::bfloat16 ? ptx::to_bfloat16(value) : ptx::to_float16(value);
  }
}

template <DataType kType>
__device__ __forceinline__ float from_bits(FloatBits<kType> bits) {
  if constexpr (kType == DataType::float32) {
    return bits;
  } else {
    return kType == DataType::bfloat16 ? __uint_as_float(std::uint32_t{bits} << 16) : ptx::from_float16(bits);
  }
}

/// 16 bytes of elements: 4 floats, or 8 of 16 bits.
template <DataType kType>
__device__ __forceinline__ uint4 to_vector(const float* values) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kType == DataType::float32) {
      words[i] = __float_as_uint(values[i]);
    } else {
      words[i] = kType == DataType::bfloat16 ? ptx::pack_bfloat16(values[2 * i], values[2 * i + 1])
                                             : ptx::pack_float16(values[2 * i], values[2 * i + 1]);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// 2 elements of 16 bits.
template <DataType kType>
__device__ __forceinline__ float2 from_word(std::uint32_t word) {
  static_assert(kType != DataType::float32);
  if constexpr (kType == DataType::bfloat16) {
    return {__uint_as_float(word << 16U), __uint_as_float(word & 0xffff0000U)};
  } else {
    return {ptx::from_float16(static_cast<std::uint16_t>(word)),
            ptx::from_float16(static_cast<std::uint16_t>(word >> 16U))};
  }
}

/// 8 elements of 16 bits.
template <DataType kType>
__device__ __forceinline__ void from_vector(const uint4& bits, float (&values)[8]) {
  const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = from_word<kType>(words[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

}  // namespace trit::cuda

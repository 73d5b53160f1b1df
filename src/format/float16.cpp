// SPDX-License-Identifier: MIT
//
// bfloat16 and float16 by integer arithmetic: hardware conversions flush denormals (vcvtneps2bf16) or follow
// MXCSR, and the contract allows neither.
#include <bit>
#include <string_view>

#include "trit/format.h"

namespace trit {

std::size_t size_of(DataType type) { return type == DataType::float32 ? 4 : 2; }

std::string_view name_of(DataType type) {
  return type == DataType::float32 ? "float32" : type == DataType::bfloat16 ? "bfloat16" : "float16";
}

float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  }
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float float16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31U;
  const std::uint32_t fraction = bits & 0x3ffU;
  if (exponent == 31) {
    const std::uint32_t quiet = fraction != 0 ? 0x400000U : 0U;
    return std::bit_cast<float>(sign | 0x7f800000U | quiet | (fraction << 13));
  }
  if (exponent != 0) {
    return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (fraction << 13));
  }
  if (fraction == 0) {
    return std::bit_cast<float>(sign);
  }
  // A denormal half is fraction * 2^-24: normal in float32.
  const int shift = std::countl_zero(fraction) - 21;
  const std::uint32_t normal = (fraction << shift) & 0x3ffU;
  return std::bit_cast<float>(sign | ((113U - static_cast<std::uint32_t>(shift)) << 23) | (normal << 13));
}

std::uint16_t float_to_float16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {
    return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  }
  if (magnitude >= 0x477ff000U) {  // 65520 and above round to infinity
    return static_cast<std::uint16_t>(sign | 0x7c00U);
  }
  if (magnitude >= 0x38800000U) {  // 2^-14: a normal half
    const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
  }
  // Denormal: significand * 2^(exponent - 150) in units of 2^-24, so shift right by 126 - exponent.
  const std::uint32_t shift = 126U - (magnitude >> 23);
  if (shift > 25) {
    return static_cast<std::uint16_t>(sign);
  }
  const std::uint32_t significand = (magnitude & 0x7fffffU) | 0x800000U;
  const std::uint32_t quotient = significand >> shift;
  const std::uint32_t remainder = significand & ((1U << shift) - 1U);
  const std::uint32_t half = 1U << (shift - 1U);
  const bool up = remainder > half || (remainder == half && (quotient & 1U) != 0);
  return static_cast<std::uint16_t>(sign | (quotient + (up ? 1U : 0U)));
}

}  // namespace trit

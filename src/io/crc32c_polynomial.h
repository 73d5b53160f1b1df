// SPDX-License-Identifier: MIT
//
// Arithmetic modulo the polynomial of CRC-32C.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trit::crc32c_polynomial {

/// Product of two polynomials modulo the CRC's, the coefficient of x^0 in the highest bit.
constexpr std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
  for (std::uint32_t bit = 0x80000000U; bit != 0; bit >>= 1) {
    product ^= (a & bit) != 0 ? b : 0U;
    b = (b >> 1) ^ ((b & 1U) != 0 ? 0x82f63b78U : 0U);
  }
  return product;
}

/// x to the power of 8 * bytes: the factor by which so many bytes that follow move a CRC.
constexpr std::uint32_t power(std::uint64_t bytes) {
  std::uint32_t result = 0x80000000U;  // 1
  std::uint32_t square = 0x00800000U;  // x^8, squared for each bit of the length
  for (; bytes != 0; bytes >>= 1) {
    if ((bytes & 1U) != 0) {
      result = multiply(result, square);
    }
    square = multiply(square, square);
  }
  return result;
}

/// One 64-bit factor of the folds: x^exponent modulo the CRC's polynomial, exponent = 8 * bytes + 7, as a
/// polynomial of 64 coefficients, the highest degree in the lowest bit.
constexpr long long fold_factor(std::size_t bytes) {
  constexpr std::uint32_t kX7 = 0x80000000U >> 7;
  return static_cast<long long>(std::uint64_t{multiply(power(bytes), kX7)} << 32);
}

}  // namespace trit::crc32c_polynomial

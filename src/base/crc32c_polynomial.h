// SPDX-License-Identifier: MIT
//
// Arithmetic modulo the polynomial of CRC-32C.
#pragma once

#include <array>
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

/// x to the powers of 8 * 2^i.
constexpr std::array<std::uint32_t, 64> kSquares = [] {
  std::array<std::uint32_t, 64> squares{};
  std::uint32_t square = 0x00800000U;  // x^8
  for (std::uint32_t& entry : squares) {
    entry = square;
    square = multiply(square, square);
  }
  return squares;
}();

/// x to the power of 8 * bytes: the factor by which so many bytes that follow move a CRC.
constexpr std::uint32_t power(std::uint64_t bytes) {
  std::uint32_t result = 0x80000000U;  // 1
  for (std::size_t bit = 0; bit < kSquares.size(); ++bit) {
    if ((bytes >> bit & 1U) != 0) {
      result = multiply(result, kSquares[bit]);
    }
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

// SPDX-License-Identifier: MIT
//
// C [R, S] = A [R, D] · B [D, S] with floats A and B of integers up to 256, on AMX's bf16 products: the float
// products of a layer's backward. A float is the sum of three bf16 numbers, each of 8 of its 24 bits, and an
// integer is one, so every product is exact and only the sums are rounded, in fp32, as in a float GEMM.
// Denormal parts and sums are zero (the instruction's rule): 2^-126 is the smallest magnitude kept.
//
//   A, 32 rows x 32 of D   three parts, high first, of two tiles: 16 rows of 16 pairs
//   B, 32 of D x 32        two tiles of 16 columns: line p has the pairs (2 p, 2 p + 1), one for each column
#pragma once

#include <cstdint>

#include "cpu/table.h"

namespace trit::amx {

inline constexpr std::int64_t kFloatStep = 32;  // rows, columns and D of a step
inline constexpr std::int64_t kPartsBytes = 6144;
inline constexpr std::int64_t kPairsBytes = 2048;

void rows_to_parts(const FloatRows& from, std::int8_t* parts);
void columns_to_parts(const FloatRows& from, std::int8_t* parts);
void codes_to_pairs(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                    std::int64_t columns, std::int8_t* pairs);
void integers_to_pairs(const std::int8_t* q, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                       std::int8_t* pairs);
void float_product(const FloatProduct& args);

}  // namespace trit::amx

// SPDX-License-Identifier: MIT
//
// The AVX2 row of the kernel table, function by function; the contracts are in cpu/table.h.
//
// A panel is 32 output rows. Each of its 32-byte lines is those rows x 4 inputs: byte i holds, in its 2-bit
// fields from the lowest, the codes t + 1 of the rows l, l + 8, l + 16, l + 24 (l = i / 4) at the input
// offset i % 4:
//
//   byte i of a line     bits 7..6   5..4     3..2    1..0        l = i / 4
//                        row l+24    l+16     l+8     l           input 4 * line + i % 4
//
// So a field, shifted down and masked, is 8 rows x 4 inputs of bytes 0..2, ready for vpmaddubsw against the
// four q of a token, broadcast; the sums land one row to a 32-bit lane and need no horizontal additions.
#pragma once

#include <cstdint>

#include "cpu/table.h"

namespace trit::avx2 {

inline constexpr int kPanelRows = 32;
inline constexpr int kLineBytes = 32;
inline constexpr int kFields = 4;

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                   std::int64_t in_features, std::uint8_t* panel);
void product_tile(const ProductTile& tile);
void group_tile(const GroupTile& tile);
void group_q_sums(const std::int8_t* q, std::int64_t k, std::int64_t group, std::int32_t* sums);
void epilogue_row(const EpilogueRow& row);
void group_row(const GroupRow& row, std::int64_t panel_rows);
void norm_quant_row(const NormQuantRow& row);
void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block);
float abs_sum_row(const float* w, std::int64_t in_features);
void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes);
void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w);
extern const FloatProductKernel kFloatProduct;

}  // namespace trit::avx2

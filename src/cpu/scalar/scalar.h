// SPDX-License-Identifier: MIT
//
// The scalar row of the kernel table, function by function: the definition that the others agree with. It
// wraps the plain loops of src/format, and a panel is one stored row.
#pragma once

#include "cpu/table.h"

namespace trit::scalar {

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                   std::int64_t in_features, std::uint8_t* panel);
void product_tile(const ProductTile& tile);
void epilogue_row(const EpilogueRow& row);
void group_row(const GroupRow& row, std::int64_t panel_rows);
void norm_quant_row(const NormQuantRow& row);
void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block);
float abs_sum_row(const float* w, std::int64_t in_features);
void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes);
void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w);

}  // namespace trit::scalar

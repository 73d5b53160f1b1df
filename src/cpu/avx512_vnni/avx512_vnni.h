// SPDX-License-Identifier: MIT
//
// The AVX-512 VNNI row of the kernel table, function by function; the contracts are in cpu/table.h.
#pragma once

#include <cstdint>

#include "cpu/cpu_features.h"
#include "cpu/table.h"

namespace trit::avx512_vnni {

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                   std::int64_t in_features, std::uint8_t* panel);
void product_tile(const ProductTile& args);
/// The tile as it is on a processor of `vendor`: the same results, other prefetches.
void product_tile_on(CpuVendor vendor, const ProductTile& args);
// Base-3 panels; these need VBMI.
void prepare_panel_base3(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                         std::int64_t in_features, std::uint8_t* panel);
void product_tile_base3(const ProductTile& args);
void epilogue_row(const EpilogueRow& args);
void group_row(const GroupRow& args, std::int64_t panel_rows);
/// Of 2-bit panels.
extern const GroupKernel kGroupKernel;
/// Its tile, as product_tile_on.
void group_tile_on(CpuVendor vendor, const GroupTile& args);
void norm_quant_row(const NormQuantRow& args);
void walsh_hadamard_row(float* x, std::int64_t in_features, std::int64_t block);
float abs_sum_row(const float* w, std::int64_t in_features);
void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes);
void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w);
extern const FloatProductKernel kFloatProduct;

}  // namespace trit::avx512_vnni

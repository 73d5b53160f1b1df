// SPDX-License-Identifier: MIT
#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/hybrid/hybrid.h"
#include "cpu/cpu_features.h"
#include "cpu/table.h"

namespace trit {
namespace {

constexpr PanelLayout kLayouts[] = {
    {
        .format = PanelFormat::two_bit,
        .available = [] { return true; },
        .panel_rows = 64,
        .panel_bytes_per_4 = 64,
        .prepare_panel = avx512_vnni::prepare_panel,
        .max_tokens =
            6,  // 6 tokens x 4 fields = 24 accumulators, + 4 fields, a line and 4 bytes of q: 30 of 32
        // Field 3 holds code * 64 <= 128 and |q| <= 128: a sum is at least -2^14 K, which int32 holds up to
        // K = 2^17 = 131,072 (exactly -2^31 there; the positive side ends at 127 * 128 K).
        .max_k = 131'072,
        .product_tile = avx512_vnni::product_tile,
        .product_part = avx512_vnni::hybrid::product,
        .groups = &avx512_vnni::kGroupKernel,
    },
    {
        .format = PanelFormat::base3,
        .available = has_avx512_vbmi,
        .panel_rows = 80,
        .panel_bytes_per_4 = 64,
        .prepare_panel = avx512_vnni::prepare_panel_base3,
        .max_tokens = 4,   // 20 accumulators, + 3 constants, 5 operands and 4 bytes of q: 29 of 32
        .max_k = 131'072,  // field 3, as above; what multiplies base-3 bytes may overflow
        .product_tile = avx512_vnni::product_tile_base3,
    },
};

}  // namespace

constinit const CpuKernels k_avx512_vnni = {
    .backend = Backend::avx512_vnni,
    .available = has_avx512_vnni,
    .layouts = kLayouts,
    .epilogue_row = avx512_vnni::epilogue_row,
    .group_row = avx512_vnni::group_row,
    .norm_quant_row = avx512_vnni::norm_quant_row,
    .walsh_hadamard_row = avx512_vnni::walsh_hadamard_row,
    .abs_sum_row = avx512_vnni::abs_sum_row,
    .ternarize_pack_row = avx512_vnni::ternarize_pack_row,
    .dequantize_row = avx512_vnni::dequantize_row,
    .float_product = &avx512_vnni::kFloatProduct,
};

}  // namespace trit

// SPDX-License-Identifier: MIT
#include "cpu/avx2/avx2.h"

#include "cpu/cpu_features.h"
#include "cpu/table.h"

namespace trit {
namespace {

constexpr GroupKernel kGroups = {
    .offset_count = 1,
    .offsets = avx2::group_q_sums,
    .max_group = 256,  // what 16-bit sums hold
    .shifts_scales = false,
    .tile = avx2::group_tile,
};

constexpr PanelLayout kLayouts[] = {{
    .format = PanelFormat::two_bit,
    .available = [] { return true; },
    .panel_rows = avx2::kPanelRows,
    .panel_bytes_per_4 = avx2::kLineBytes,
    .prepare_panel = avx2::prepare_panel,
    .max_tokens = 4,  // 2 fields x 4 tokens of sums, and 6 registers to feed them
    .max_k = (1 << 24) - 4,
    .product_tile = avx2::product_tile,
    .groups = &kGroups,
}};

}  // namespace

constinit const CpuKernels k_avx2 = {
    .backend = Backend::avx2,
    .available = has_avx2,
    .layouts = kLayouts,
    .epilogue_row = avx2::epilogue_row,
    .group_row = avx2::group_row,
    .norm_quant_row = avx2::norm_quant_row,
    .walsh_hadamard_row = avx2::walsh_hadamard_row,
    .abs_sum_row = avx2::abs_sum_row,
    .ternarize_pack_row = avx2::ternarize_pack_row,
    .dequantize_row = avx2::dequantize_row,
    .float_product = &avx2::kFloatProduct,
};

}  // namespace trit

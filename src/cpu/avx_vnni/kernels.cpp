// SPDX-License-Identifier: MIT
#include "cpu/avx2/avx2.h"
#include "cpu/avx_vnni/avx_vnni.h"
#include "cpu/cpu_features.h"
#include "cpu/table.h"

namespace trit {
namespace {

constexpr GroupKernel kGroups = {
    .offset_count = 1,
    .offsets = avx2::group_q_sums,
    .max_group = 131'072,
    .shifts_scales = false,
    .tile = avx_vnni::group_tile,
};

constexpr PanelLayout kLayouts[] = {{
    .format = PanelFormat::two_bit,
    .available = [] { return true; },
    .panel_rows = avx2::kPanelRows,
    .panel_bytes_per_4 = avx2::kLineBytes,
    .prepare_panel = avx2::prepare_panel,
    .max_tokens = 6,   // 2 fields x 6 tokens = 12 accumulators, + 2 fields and 4 bytes of q: 15 of 16
    .max_k = 131'072,  // as in avx512_vnni: field 3 is code * 64, a sum at least -2^14 K
    .product_tile = avx_vnni::product_tile,
    .groups = &kGroups,
}};

}  // namespace

constinit const CpuKernels k_avx_vnni = {
    .backend = Backend::avx_vnni,
    .available = has_avx_vnni,
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

// SPDX-License-Identifier: MIT
#include "cpu/scalar/scalar.h"
#include "cpu/table.h"

namespace trit {
namespace {

constexpr PanelLayout kLayouts[] = {{
    .format = PanelFormat::two_bit,
    .available = [] { return true; },
    .panel_rows = 1,
    .panel_bytes_per_4 = 1,
    .prepare_panel = scalar::prepare_panel,
    .max_tokens = 8,         // a weight is decoded once for eight tokens
    .max_k = (1 << 24) - 4,  // sums of q * t: |acc| <= 128 * K
    .product_tile = scalar::product_tile,
}};

}  // namespace

constinit const CpuKernels k_scalar = {
    .backend = Backend::scalar,
    .available = [] { return true; },
    .layouts = kLayouts,
    .epilogue_row = scalar::epilogue_row,
    .group_row = scalar::group_row,
    .norm_quant_row = scalar::norm_quant_row,
    .walsh_hadamard_row = scalar::walsh_hadamard_row,
    .abs_sum_row = scalar::abs_sum_row,
    .ternarize_pack_row = scalar::ternarize_pack_row,
    .dequantize_row = scalar::dequantize_row,
};

}  // namespace trit

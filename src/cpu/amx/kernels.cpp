// SPDX-License-Identifier: MIT
#include "cpu/amx/amx.h"
#include "cpu/amx/float_product.h"
#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/cpu_features.h"
#include "cpu/table.h"

namespace trit {
namespace {

constexpr ManyTokensKernel kManyTokens = {
    .min_tokens = amx::kMinTokens,
    .token_step = amx::kBlockTokens,
    .group_step = amx::kGroupInputs,
    .arranged_bytes = amx::arranged_bytes,
    .arrange = amx::arrange,
    .product = amx::product,
};

constexpr FloatProductKernel kFloatProduct = {
    .available = has_amx_bf16,
    .rows = amx::kFloatStep,
    .columns = amx::kFloatStep,
    .cached_bytes = std::int64_t{1} << 20,  // half of the second-level cache of a core with AMX
    .max_tokens = 512,
    .max_steps = 1024,  // no bound: B goes by through the tiles, and is not kept in L1
    .parts_bytes = amx::kPartsBytes,
    .pairs_bytes = amx::kPairsBytes,
    .rows_to_parts = amx::rows_to_parts,
    .columns_to_parts = amx::columns_to_parts,
    .codes_to_pairs = amx::codes_to_pairs,
    .integers_to_pairs = amx::integers_to_pairs,
    .product = amx::float_product,
};

constexpr PanelLayout kLayouts[] = {{
    .format = PanelFormat::two_bit,
    .available = [] { return true; },
    .panel_rows = 64,
    .panel_bytes_per_4 = 64,
    .prepare_panel = avx512_vnni::prepare_panel,
    .max_tokens = 6,
    .max_k = 131'072,
    .product_tile = avx512_vnni::product_tile,
    .many_tokens = &kManyTokens,
    .groups = &avx512_vnni::kGroupKernel,
}};

}  // namespace

constinit const CpuKernels k_amx = {
    .backend = Backend::amx,
    .available = has_amx,
    .layouts = kLayouts,
    .epilogue_row = avx512_vnni::epilogue_row,
    .group_row = avx512_vnni::group_row,
    .norm_quant_row = avx512_vnni::norm_quant_row,
    .walsh_hadamard_row = avx512_vnni::walsh_hadamard_row,
    .abs_sum_row = avx512_vnni::abs_sum_row,
    .ternarize_pack_row = avx512_vnni::ternarize_pack_row,
    .dequantize_row = avx512_vnni::dequantize_row,
    .float_product = &kFloatProduct,
};

}  // namespace trit

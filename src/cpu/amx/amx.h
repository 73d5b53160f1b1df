// SPDX-License-Identifier: MIT
//
// The AMX row of the kernel table: its product tile. The layout and everything else are avx512_vnni's; the
// contracts are in trit/kernels.h.
#pragma once

#include <cstdint>

#include "trit/kernels.h"

namespace trit::amx {

/// Fewer tokens than this go to the AVX-512 tile.
inline constexpr std::int64_t kFewestTokens = 5;

std::int64_t arranged_bytes(std::int64_t tokens, std::int64_t k);
void arrange(const ProductTile& tile, std::int8_t* arranged);
void product_tile(const ProductTile& tile);

}  // namespace trit::amx

// SPDX-License-Identifier: MIT
//
// The AVX-VNNI row of the kernel table: its product tile. The layout and everything else are avx2's
// (cpu/avx2/avx2.h draws a panel); the contracts are in cpu/table.h.
#pragma once

#include "cpu/table.h"

namespace trit::avx_vnni {

void product_tile(const ProductTile& tile);
void group_tile(const GroupTile& tile);

}  // namespace trit::avx_vnni

// SPDX-License-Identifier: MIT
//
// The two halves of a rotation (trit/rotation.h).
#pragma once

#include <cstdint>
#include <span>

#include "trit/rotation.h"

namespace trit {

/// x[k] = -x[k] where signs[k] is -1; null: nothing.
void apply_signs(std::span<float> x, const std::int8_t* signs);
/// x = H x / sqrt(block), block by block of the row; the definition.
void walsh_hadamard_row(std::span<float> x, std::int64_t block);

}  // namespace trit

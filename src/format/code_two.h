// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace trit {

/// Whether one of the 2-bit fields of stored codes is 2, which is no ternary weight.
bool has_code_two(std::span<const std::uint8_t> codes);

}  // namespace trit

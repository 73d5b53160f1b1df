// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace trit {

/// Whether one of the 2-bit fields of stored codes is 2, which is not a ternary code.
bool has_code_two(std::span<const std::uint8_t> codes);

/// The bits of a row's last stored byte that lie past its last column: all must be 0.
constexpr unsigned padding_bits(std::int64_t columns) {
  const std::int64_t tail = columns % 4;
  return tail == 0 ? 0U : 0xffU << (2 * tail) & 0xffU;
}

}  // namespace trit

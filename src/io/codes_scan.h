// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

namespace trit::io {

struct CodesScan {
  std::uint32_t crc = 0;  ///< CRC-32C of the codes so far
  bool has_two = false;   ///< one of their 2-bit fields is 2, which is not a ternary code
};

/// `before`, the result for the codes in front of `codes`, continued over `codes` in one pass that
/// prefetches.
CodesScan scan_codes(std::span<const std::uint8_t> codes, CodesScan before);

}  // namespace trit::io

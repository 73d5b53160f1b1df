// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of `bytes`, continued from `crc`, the CRC of the
/// bytes before them. crc32c of "123456789" is 0xe3069283. About 20 GB/s with SSE 4.2, 2 GB/s without.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

/// CRC-32C of two byte sequences joined, from the CRC of each and the length of the second.
std::uint32_t crc32c_combine(std::uint32_t first, std::uint32_t second, std::uint64_t second_bytes);

}  // namespace trit

TRIT_EXPORT_END

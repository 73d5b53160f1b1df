// SPDX-License-Identifier: MIT
//
// The implementations of CRC-32C, for their test. All take and return the register, not its complement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace trit::crc32c_ways {

bool has_instruction();  ///< crc32 and carry-less products of 64 bits
bool can_fold();         ///< carry-less products on AVX-512 as well

std::uint32_t tables(std::span<const std::byte> bytes, std::uint32_t state);
std::uint32_t instruction(std::span<const std::byte> bytes, std::uint32_t state);
std::uint32_t folding(std::span<const std::byte> bytes, std::uint32_t state);

}  // namespace trit::crc32c_ways

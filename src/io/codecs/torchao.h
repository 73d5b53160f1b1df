// SPDX-License-Identifier: MIT
//
// torchao's BitNetPacked2bitLinearWeight: int8 [N, K / 4], the codes of the stored form (2-bit two's
// complement) with the columns of a byte in the opposite order. K is a multiple of 4.
//
//   byte j   bits 7 6   5 4    3 2    1 0
//   column        4j   4j+1   4j+2   4j+3
#pragma once

#include <cstdint>
#include <span>

namespace trit::io::torchao {

/// The four 2-bit fields of each byte, reversed: torchao's order to the stored form's, and back. Code 2
/// stays 2.
void reverse_fields(std::span<const std::uint8_t> bytes, std::span<std::uint8_t> reversed);

}  // namespace trit::io::torchao

// SPDX-License-Identifier: MIT
//
// I2_S of bitnet.cpp, in the order of its x86 build: the whole matrix, flattened row by row, in blocks of 128
// weights of 32 bytes; one float32 scale behind the last block.
//
//   0                    n/4      n/4 + 4        n/4 + 32
//   | block | ... | block | scale | 28 bytes unused |
//
//   byte m of a block   bits 7 6   5 4   3 2   1 0
//              weight         m   32+m  64+m  96+m      code t + 1
//
// A block may span two rows.
#pragma once

#include <cstdint>
#include <span>

namespace trit::io::i2_s {

inline constexpr std::int64_t kBlockWeights = 128;
inline constexpr std::int64_t kBlockBytes = 32;
inline constexpr std::int64_t kTailBytes = 32;
inline constexpr std::uint32_t kGgmlType = 36;

/// The codes (t + 1, or 3) of the weights first .. first + codes.size() - 1 of the flattened matrix.
void decode(std::span<const std::uint8_t> blocks, std::int64_t first, std::span<std::uint8_t> codes);

/// blocks [codes.size() / 4] of a whole matrix of codes; their number is a multiple of 128.
void encode(std::span<const std::uint8_t> codes, std::span<std::uint8_t> blocks);

}  // namespace trit::io::i2_s

// SPDX-License-Identifier: MIT
//
// The packed rows of transformers' BitNet layers: uint8 [R, K], R = ceil(N / 4). Four rows that lie R apart
// share a byte; the code is t + 1, and 3 is invalid.
//
//   byte[r][c]   bits 7 6     5 4     3 2     1 0
//        row     3R + r      2R + r  R + r     r       column c
//
// Where N is not a multiple of 4, the rows N .. 4R - 1 are -1 (code 0).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace trit::io::huggingface {

/// Stored form of the row in `bytes` [K] whose two bits start at 2 * field. Returns the first invalid column.
std::optional<std::size_t> decode_row(std::span<const std::uint8_t> bytes, int field,
                                      std::span<std::uint8_t> packed);

/// The bytes [K] of four rows of codes t + 1 [K]; a row that does not exist is empty.
void encode_rows(std::span<const std::uint8_t> row0, std::span<const std::uint8_t> row1,
                 std::span<const std::uint8_t> row2, std::span<const std::uint8_t> row3,
                 std::span<std::uint8_t> bytes);

}  // namespace trit::io::huggingface

// SPDX-License-Identifier: MIT
//
// The common form between codecs: a row as bytes, one code t + 1 in {0, 1, 2} per weight. A codec decodes
// bits that are not a weight to 3 or more, which pack_codes finds. These functions convert to and from the
// packed form (format.h: 2-bit two's complement, four columns a byte, low bits first).
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace trit::io {

/// Any code above 2.
inline constexpr std::uint8_t kInvalidCode = 3;

/// The stored form of codes.size() weights, packed_row_bytes(codes.size()) bytes, the padding zero. Returns
/// the index of the first invalid code; `packed` is then meaningless.
std::optional<std::size_t> pack_codes(std::span<const std::uint8_t> codes, std::span<std::uint8_t> packed);

/// codes.size() codes from the stored form; its invalid code 2 becomes kInvalidCode.
void unpack_codes(std::span<const std::uint8_t> packed, std::span<std::uint8_t> codes);

/// The column of the first weight of a stored row that is invalid: code 2, or a padding that is not zero.
std::optional<std::size_t> find_invalid(std::span<const std::uint8_t> packed, std::size_t in_features);

/// Four codes, one in each byte of `word`, to one stored byte (in the low byte of the result; the others are
/// undefined). code - 1 mod 4 is (code + 3) & 3: no carry leaves a byte.
///   byte 3 2 1 0 of word:  c3 c2 c1 c0   ->   c3 << 6 | c2 << 4 | c1 << 2 | c0
inline std::uint32_t pack_word(std::uint32_t word) {
  const std::uint32_t bits = (word + 0x03030303U) & 0x03030303U;
  return bits | bits >> 6 | bits >> 12 | bits >> 18;
}

inline std::uint32_t load_word(const std::uint8_t* bytes) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

}  // namespace trit::io

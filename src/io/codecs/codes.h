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

// The codes t + 1 of fields of 2 bits, packed as the stored form is, and the stored form of them. In each field,
// with its high bit h and its low bit l:
//   t + 1 -> t:  l' = !l, h' = !(h ^ l)       t -> t + 1:  l' = !l, h' = l & !h       -t:  l' = l, h' = h ^ l
inline constexpr std::uint64_t kLowBits = 0x5555555555555555U;
inline std::uint64_t stored_fields(std::uint64_t plus_one) {
  return (~plus_one & kLowBits) | (~(plus_one >> 1 ^ plus_one) & kLowBits) << 1;
}
inline std::uint64_t plus_one_fields(std::uint64_t stored) {
  return (~stored & kLowBits) | (stored & ~(stored >> 1) & kLowBits) << 1;
}
inline std::uint64_t negated_fields(std::uint64_t stored) { return stored ^ (stored & kLowBits) << 1; }
/// Not 0 if a field is 3, which is not a t + 1.
inline std::uint64_t threes(std::uint64_t plus_one) { return plus_one & plus_one >> 1 & kLowBits; }

inline std::uint32_t load_word(const std::uint8_t* bytes) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

}  // namespace trit::io

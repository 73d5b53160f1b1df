// SPDX-License-Identifier: MIT
//
// TQ1_0: 256 weights in 54 bytes, 1.6875 bits a weight.
//
//   0          32          48        52  54
//   | qs[0..31] | qs[32..47] | qh[0..3] | d |
//     160 weights  80 weights  16 weights
//
// A byte holds five base-3 digits (qh: four, and a last one that is 0). Digit n, the highest first, of the
// bytes m belongs to the weight
//   qs[m], m < 32: 32 n + m          qs[32 + m], m < 16: 160 + 16 n + m          qh[m], m < 4: 240 + 4 n + m
//
// PTQ1_0 is the same for 128 weights in 28 bytes, 1.75 bits a weight:
//
//   0          16          24        26  28
//   | qs[0..15] | qs[16..23] | qh[0..1] | d |
//     80 weights  40 weights   8 weights
//
//   qs[m], m < 16: 16 n + m          qs[16 + m], m < 8: 80 + 8 n + m             qh[m], m < 2: 120 + 2 n + m
//
// The number v = sum of code_n * 3^(4-n), 0..242, is stored as the fraction v / 243 of 256, rounded up:
// (256 v + 242) / 243. Then digit n is the integer part of 3 * frac(byte * 3^n / 256): a multiplication
// modulo 256 and one by 3 whose high byte is the digit. 243 of the 256 bytes are such fractions.
#include <array>

#include "io/codecs/blocks.h"
#include "io/codecs/codes.h"

namespace trit::io {
namespace {

/// A group of bytes with the digits of `bytes * digits` weights.
struct Group {
  int first_byte, bytes, digits, first_weight;
};
using Groups = std::array<Group, 3>;
constexpr Groups kGroupsOf256{{{0, 32, 5, 0}, {32, 16, 5, 160}, {48, 4, 4, 240}}};
constexpr Groups kGroupsOf128{{{0, 16, 5, 0}, {16, 8, 5, 80}, {24, 2, 4, 120}}};

constexpr std::array<std::uint8_t, 243> make_fractions() {
  std::array<std::uint8_t, 243> fractions{};
  for (unsigned v = 0; v < 243; ++v) {
    fractions[v] = static_cast<std::uint8_t>((256 * v + 242) / 243);
  }
  return fractions;
}
constexpr auto kFractions = make_fractions();

/// 0 for the bytes that are a fraction of five digits (bit 0) or of four digits and a zero (bit 1).
constexpr std::array<std::uint8_t, 256> make_invalid() {
  std::array<std::uint8_t, 256> invalid{};
  invalid.fill(3);
  for (unsigned v = 0; v < 243; ++v) {
    invalid[kFractions[v]] = v % 3 == 0 ? 0 : 2;
  }
  return invalid;
}
constexpr auto kInvalid = make_invalid();

/// The digits of a group's bytes; not 0 if one is not such a fraction. Constant bounds: the loop becomes vectors.
template <const Groups& kGroups, std::size_t i>
unsigned decode_group(const std::uint8_t* block, std::uint8_t* codes) {
  constexpr Group kGroup = kGroups[i];
  std::uint16_t power = 1;
  for (int n = 0; n < kGroup.digits; ++n) {
    for (int m = 0; m < kGroup.bytes; ++m) {
      const auto fraction = static_cast<std::uint16_t>(block[kGroup.first_byte + m] * power & 0xff);
      codes[kGroup.first_weight + n * kGroup.bytes + m] = static_cast<std::uint8_t>(fraction * 3 >> 8);
    }
    power = static_cast<std::uint16_t>(power * 3);
  }
  unsigned invalid = 0;
  for (int m = 0; m < kGroup.bytes; ++m) {
    invalid |= kInvalid[block[kGroup.first_byte + m]];
  }
  return invalid & (kGroup.digits == 5 ? 1U : 3U);
}

template <const Groups& kGroups>
void decode(const std::uint8_t* block, std::uint8_t* codes) {
  const unsigned invalid = decode_group<kGroups, 0>(block, codes) | decode_group<kGroups, 1>(block, codes) |
                           decode_group<kGroups, 2>(block, codes);
  if (invalid == 0) {
    return;
  }
  // Rare, and only then is the place of interest.
  for (const Group& group : kGroups) {
    const unsigned mask = group.digits == 5 ? 1U : 3U;
    for (int m = 0; m < group.bytes; ++m) {
      if ((kInvalid[block[group.first_byte + m]] & mask) != 0) {
        codes[group.first_weight + m] = kInvalidCode;
      }
    }
  }
}

template <const Groups& kGroups>
void encode(const std::uint8_t* codes, std::uint8_t* block) {
  for (const Group& group : kGroups) {
    for (int m = 0; m < group.bytes; ++m) {
      unsigned v = 0;
      for (int n = 0; n < 5; ++n) {
        v = 3 * v + (n < group.digits ? codes[group.first_weight + n * group.bytes + m] : 0U);
      }
      block[group.first_byte + m] = kFractions[v];
    }
  }
}

}  // namespace

const BlockFormat kTq1_0{"TQ1_0", "tq1_0", 34, 256, 54, 52, decode<kGroupsOf256>, encode<kGroupsOf256>};
const BlockFormat kPtq1_0{"PTQ1_0", "ptq1_0", 143, 128, 28, 26, decode<kGroupsOf128>, encode<kGroupsOf128>};

}  // namespace trit::io

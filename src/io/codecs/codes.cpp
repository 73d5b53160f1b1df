// SPDX-License-Identifier: MIT
#include "io/codecs/codes.h"

#include <algorithm>
#include <array>

#include "format/code_two.h"

namespace trit::io {
namespace {

/// Four codes, in memory order, of each stored byte.
constexpr std::array<std::array<std::uint8_t, 4>, 256> make_unpack_table() {
  std::array<std::array<std::uint8_t, 4>, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    for (unsigned i = 0; i < 4; ++i) {
      table[byte][i] = static_cast<std::uint8_t>(((byte >> (2 * i)) + 1) & 3U);
    }
  }
  return table;
}
constexpr auto kUnpackTable = make_unpack_table();

}  // namespace

std::optional<std::size_t> pack_codes(std::span<const std::uint8_t> codes, std::span<std::uint8_t> packed) {
  const std::size_t whole = codes.size() / 4;
  std::uint32_t bad = 0;
  for (std::size_t j = 0; j < whole; ++j) {
    const std::uint32_t word = load_word(codes.data() + 4 * j);
    bad |= (word & (word >> 1) & 0x01010101U) | (word & 0xfcfcfcfcU);
    packed[j] = static_cast<std::uint8_t>(pack_word(word));
  }
  if (whole * 4 != codes.size()) {
    unsigned byte = 0;
    for (std::size_t i = 4 * whole; i < codes.size(); ++i) {
      bad |= codes[i] > 2 ? 1U : 0U;
      byte |= ((codes[i] + 3U) & 3U) << (2 * (i % 4));
    }
    packed[whole] = static_cast<std::uint8_t>(byte);
  }
  if (bad == 0) {
    return std::nullopt;
  }
  const auto first = std::find_if(codes.begin(), codes.end(), [](std::uint8_t code) { return code > 2; });
  return static_cast<std::size_t>(first - codes.begin());
}

void unpack_codes(std::span<const std::uint8_t> packed, std::span<std::uint8_t> codes) {
  const std::size_t whole = codes.size() / 4;
  for (std::size_t j = 0; j < whole; ++j) {
    std::memcpy(codes.data() + 4 * j, kUnpackTable[packed[j]].data(), 4);
  }
  for (std::size_t i = 4 * whole; i < codes.size(); ++i) {
    codes[i] = kUnpackTable[packed[whole]][i % 4];
  }
}

std::optional<std::size_t> find_invalid(std::span<const std::uint8_t> packed, std::size_t in_features) {
  // Code 2 is a high bit that is set beside a low bit that is clear.
  const auto twos = [](std::uint32_t bytes) { return bytes & ~(bytes << 1) & 0xaaaaaaaaU; };
  const unsigned padding = padding_bits(in_features);
  if (has_code_two(packed)) {
    const auto first =
        std::find_if(packed.begin(), packed.end(), [&](unsigned byte) { return twos(byte) != 0; });
    std::size_t column = 4 * static_cast<std::size_t>(first - packed.begin());
    for (unsigned bits = twos(*first); (bits & 2U) == 0; bits >>= 2) {
      ++column;
    }
    return column;
  }
  if (!packed.empty() && (packed.back() & padding) != 0) {
    return in_features;
  }
  return std::nullopt;
}

}  // namespace trit::io

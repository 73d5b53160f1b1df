// SPDX-License-Identifier: MIT
#include "io/codecs/huggingface.h"

#include "io/codecs/codes.h"

namespace trit::io::huggingface {
namespace {

// `field` is a template parameter so that the shift is an immediate of the vector instruction.
template <int field>
std::optional<std::size_t> decode(std::span<const std::uint8_t> bytes, std::span<std::uint8_t> packed) {
  constexpr int kShift = 2 * field;
  const std::size_t whole = bytes.size() / 4;
  std::uint32_t bad = 0;
  for (std::size_t j = 0; j < whole; ++j) {
    const std::uint32_t word = (load_word(bytes.data() + 4 * j) >> kShift) & 0x03030303U;
    bad |= word & (word >> 1);
    packed[j] = static_cast<std::uint8_t>(pack_word(word));
  }
  unsigned tail = 0;
  for (std::size_t c = 4 * whole; c < bytes.size(); ++c) {
    const unsigned code = (bytes[c] >> kShift) & 3U;
    bad |= code & (code >> 1);
    tail |= ((code + 3U) & 3U) << (2 * (c % 4));
  }
  if (4 * whole != bytes.size()) {
    packed[whole] = static_cast<std::uint8_t>(tail);
  }
  if ((bad & 0x01010101U) == 0) {
    return std::nullopt;
  }
  std::size_t c = 0;
  while (((bytes[c] >> kShift) & 3U) != 3U) {
    ++c;
  }
  return c;
}

}  // namespace

std::optional<std::size_t> decode_row(std::span<const std::uint8_t> bytes, int field,
                                      std::span<std::uint8_t> packed) {
  switch (field) {
    case 0:
      return decode<0>(bytes, packed);
    case 1:
      return decode<1>(bytes, packed);
    case 2:
      return decode<2>(bytes, packed);
    default:
      return decode<3>(bytes, packed);
  }
}

void encode_rows(std::span<const std::uint8_t> row0, std::span<const std::uint8_t> row1,
                 std::span<const std::uint8_t> row2, std::span<const std::uint8_t> row3,
                 std::span<std::uint8_t> bytes) {
  for (std::size_t c = 0; c < bytes.size(); ++c) {
    bytes[c] = row0[c];
  }
  const auto add = [bytes](std::span<const std::uint8_t> row, int shift) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      bytes[c] = static_cast<std::uint8_t>(bytes[c] | row[c] << shift);
    }
  };
  add(row1, 2);
  add(row2, 4);
  add(row3, 6);
}

}  // namespace trit::io::huggingface

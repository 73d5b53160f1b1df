// SPDX-License-Identifier: MIT
#include "io/codecs/torchao.h"

namespace trit::io::torchao {

void reverse_fields(std::span<const std::uint8_t> bytes, std::span<std::uint8_t> reversed) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const unsigned byte = bytes[i];
    const unsigned nibbles = byte << 4 | byte >> 4;  // 7 6 5 4 3 2 1 0 -> 3 2 1 0 7 6 5 4
    reversed[i] = static_cast<std::uint8_t>((nibbles & 0x33U) << 2 | (nibbles >> 2 & 0x33U));
  }
}

}  // namespace trit::io::torchao

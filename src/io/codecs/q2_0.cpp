// SPDX-License-Identifier: MIT
//
// Q2_0: 64 weights in 18 bytes, 2.25 bits a weight.
//
//   0   2         18
//   | d | qs[0..15] |
//
// Byte m holds the weights 4m .. 4m + 3, low bits first. Older files use the name for blocks of 128 weights
// in 34 bytes; their tensors are shorter, which is how the reader knows them.
#include "io/codecs/blocks.h"

namespace trit::io {
namespace {

void decode(const std::uint8_t* block, std::uint8_t* codes) {
  for (int i = 0; i < 64; ++i) {
    codes[i] = static_cast<std::uint8_t>(block[2 + i / 4] >> (2 * (i % 4)) & 3);
  }
}

void encode(const std::uint8_t* codes, std::uint8_t* block) {
  for (int m = 0; m < 16; ++m) {
    const std::uint8_t* c = codes + 4 * m;
    block[2 + m] = static_cast<std::uint8_t>(c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6);
  }
}

}  // namespace

const BlockFormat kQ2_0{"Q2_0", "q2_0", 42, 64, 18, 0, decode, encode};

}  // namespace trit::io

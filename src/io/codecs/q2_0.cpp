// SPDX-License-Identifier: MIT
//
// Q2_0: 64 weights in 18 bytes, 2.25 bits a weight. PQ2_0: 128 weights in 34 bytes, 2.125 bits a weight.
//
//   0   2           18 (34)
//   | d | qs[0..15 (31)] |
//
// Byte m holds the weights 4m .. 4m + 3, low bits first. In files older than the type number of
// PQ2_0 its blocks have the number of Q2_0 (gguf_ranges.cpp).
#include "io/codecs/blocks.h"

namespace trit::io {
namespace {

template <int weights>
void decode(const std::uint8_t* block, std::uint8_t* codes) {
  for (int i = 0; i < weights; ++i) {
    codes[i] = static_cast<std::uint8_t>(block[2 + i / 4] >> (2 * (i % 4)) & 3);
  }
}

template <int weights>
void encode(const std::uint8_t* codes, std::uint8_t* block) {
  for (int m = 0; m < weights / 4; ++m) {
    const std::uint8_t* c = codes + 4 * m;
    block[2 + m] = static_cast<std::uint8_t>(c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6);
  }
}

}  // namespace

const BlockFormat kQ2_0{"Q2_0", "q2_0", 42, 64, 18, 0, decode<64>, encode<64>, 2};
const BlockFormat kPq2_0{"PQ2_0", "pq2_0", 142, 128, 34, 0, decode<128>, encode<128>, 2};

}  // namespace trit::io

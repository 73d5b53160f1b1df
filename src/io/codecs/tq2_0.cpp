// SPDX-License-Identifier: MIT
//
// TQ2_0: 256 weights in 66 bytes, 2.0625 bits a weight.
//
//   0          32         64   66
//   | qs[0..31] | qs[32..63] | d |
//
// Each half of qs holds 128 weights: byte m has the weights m, 32 + m, 64 + m, 96 + m of its half, low bits
// first.
#include "io/codecs/blocks.h"

namespace trit::io {
namespace {

void decode(const std::uint8_t* block, std::uint8_t* codes) {
  for (int half = 0; half < 2; ++half) {
    for (int field = 0; field < 4; ++field) {
      for (int m = 0; m < 32; ++m) {
        codes[128 * half + 32 * field + m] =
            static_cast<std::uint8_t>(block[32 * half + m] >> (2 * field) & 3);
      }
    }
  }
}

void encode(const std::uint8_t* codes, std::uint8_t* block) {
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t* c = codes + 128 * half;
    for (int m = 0; m < 32; ++m) {
      block[32 * half + m] =
          static_cast<std::uint8_t>(c[m] | c[32 + m] << 2 | c[64 + m] << 4 | c[96 + m] << 6);
    }
  }
}

}  // namespace

const BlockFormat kTq2_0{"TQ2_0", "tq2_0", 35, 256, 66, 64, decode, encode};

}  // namespace trit::io

// SPDX-License-Identifier: MIT
#include "io/codecs/i2_s.h"

#include <algorithm>
#include <array>

namespace trit::io::i2_s {
namespace {

void decode_block(const std::uint8_t* block, std::uint8_t* codes) {
  for (int field = 0; field < 4; ++field) {
    for (int m = 0; m < 32; ++m) {
      codes[32 * field + m] = static_cast<std::uint8_t>(block[m] >> (6 - 2 * field) & 3);
    }
  }
}

}  // namespace

void decode(std::span<const std::uint8_t> blocks, std::int64_t first, std::span<std::uint8_t> codes) {
  std::array<std::uint8_t, kBlockWeights> part;
  std::size_t done = 0;
  while (done < codes.size()) {
    const std::int64_t at = first + static_cast<std::int64_t>(done);
    const std::uint8_t* block = blocks.data() + at / kBlockWeights * kBlockBytes;
    const auto skip = static_cast<std::size_t>(at % kBlockWeights);
    const std::size_t count = std::min(part.size() - skip, codes.size() - done);
    if (count == part.size()) {
      decode_block(block, codes.data() + done);
    } else {
      decode_block(block, part.data());
      std::copy_n(part.data() + skip, count, codes.data() + done);
    }
    done += count;
  }
}

void encode(std::span<const std::uint8_t> codes, std::span<std::uint8_t> blocks) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::uint8_t* c = codes.data() + i / 32 * 128 + i % 32;
    blocks[i] = static_cast<std::uint8_t>(c[0] << 6 | c[32] << 4 | c[64] << 2 | c[96]);
  }
}

}  // namespace trit::io::i2_s

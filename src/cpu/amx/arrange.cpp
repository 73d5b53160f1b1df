// SPDX-License-Identifier: MIT
//
// q as the tiles of a product of many tokens want it.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/amx/amx.h"
#include "cpu/amx/region.h"

namespace trit::amx {
namespace {

/// Tokens of the arrangement: whole tiles.
constexpr std::int64_t padded_tokens(std::int64_t tokens) { return ceil_div(tokens, kTileRows) * kTileRows; }

}  // namespace

// Blocks of 32 tokens, the last of 16 where that holds the rest. In a block: steps of 64 inputs; in a step:
// one or two tiles of 16 tokens x 64 bytes. Tokens and inputs that are missing are zeros, so that the
// multiplying loops know nothing of them.
std::int64_t arranged_bytes(std::int64_t tokens, std::int64_t k) {
  return padded_tokens(tokens) * steps_of(k) * kStepInputs;
}

void arrange(const std::int8_t* q, std::int64_t q_stride, std::int64_t tokens, std::int64_t k,
             std::int8_t* arranged) {
  // Four rows side by side, and the next four fetched: a row may be a page, at whose end the hardware stops
  // fetching.
  constexpr std::int64_t kTogether = 4;
  static_assert(kTileRows % kTogether == 0);
  const std::int64_t steps = steps_of(k);
  const std::int64_t left = k - (steps - 1) * kStepInputs;
  const __mmask64 last = left == kStepInputs ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
  for (std::int64_t block = 0; block < tokens; block += kBlockTokens) {
    const std::int64_t in_block = std::min(kBlockTokens, tokens - block);
    const std::int64_t rows = padded_tokens(in_block);
    for (std::int64_t row = 0; row < rows; row += kTogether) {
      const std::int8_t* from[kTogether];
      __mmask64 there[kTogether];
      for (std::int64_t i = 0; i < kTogether; ++i) {
        from[i] = q + (block + std::min(row + i, in_block - 1)) * q_stride;
        there[i] = row + i < in_block ? ~__mmask64{0} : 0;
      }
      const std::int64_t to_next = row + 2 * kTogether <= in_block ? kTogether * q_stride : 0;
      std::int8_t* const to = arranged + block * steps * kStepInputs + row * kStepInputs;
      for (std::int64_t step = 0; step < steps; ++step) {
        const __mmask64 bytes = step + 1 == steps ? last : ~__mmask64{0};
        for (std::int64_t i = 0; i < kTogether; ++i) {
          const std::int8_t* const line = from[i] + step * kStepInputs;
          _mm_prefetch(reinterpret_cast<const char*>(line + to_next), _MM_HINT_T0);
          _mm512_store_si512(to + (step * rows + i) * kStepInputs,
                             _mm512_maskz_loadu_epi8(bytes & there[i], line));
        }
      }
    }
  }
}

}  // namespace trit::amx

// SPDX-License-Identifier: MIT
//
// The loop over lines of AVX2 panels.
//
// acc[token][row] = sum over k of q * t, from codes t + 1 in {0, 1, 2}: sum of q * (t + 1), less the sum of
// q.
//
// vpmaddubsw multiplies bytes and adds neighbours into int16, saturating; vpaddw adds those up; every
// 64 lines vpmaddwd by one widens them to int32. No step saturates or wraps: with q in [-128, 127] a
// pair is within [-512, 508] (twice 2 * q), and 64 of them are within [-32768, 32512]. That is why
// each field is shifted down to 0..2: used in place as code * 4 it would need widening four times as
// often, which costs more than the shift. The int32 sums may wrap: their difference from q_sum is
// exact modulo 2^32, and |sum of q * t| < 2^31.
//
// Registers: 8 sums (4 fields x 2 tokens, or 2 x 4 in two passes over the same lines,
// which are in L1), a line, 2 to 4 codes, a broadcast q, a product, the mask: 16 at most.
// 4 tokens: 39 operations for 512 products.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "cpu/avx2/avx2.h"

namespace trit::avx2 {
namespace {

constexpr std::int64_t kLinesPerFlush = 64;

[[gnu::always_inline]] inline __m256i broadcast4(const std::int8_t* q) {
  std::int32_t four = 0;
  std::memcpy(&four, q, 4);
  return _mm256_set1_epi32(four);
}

[[gnu::always_inline]] inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// sum += product in int16, in the register that holds the sum: left to itself gcc 12 adds into the product's
// register and copies it back, one more instruction for each sum and line.
[[gnu::always_inline]] inline void add_to(__m256i& sum, __m256i product) {
  __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(product));
}

// At most kLinesPerFlush lines from input k on: the fields [kFirst, kFirst + kCount) of all tokens. Sums are
// indexed by packs, not loops, so that they are registers from the compilers' first pass on: in loops gcc 12
// gives some of them a home on the stack.
template <int kTokens, int kFirst, int kCount, typename Ending, std::size_t... kField, std::size_t... kToken>
[[gnu::always_inline]] inline void add_lines(const ProductTile& tile, const Ending& ending, std::int64_t k,
                                             std::int64_t lines, std::index_sequence<kField...> /*fields*/,
                                             std::index_sequence<kToken...> /*tokens*/) {
  const __m256i low_field = _mm256_set1_epi8(3);
  const std::uint8_t* line = tile.panel + k / 4 * kLineBytes;
  const std::uint8_t* const end = line + lines * kLineBytes;
  const std::int8_t* q = tile.q + k;
  [[maybe_unused]] const std::int64_t prefetch_step = kLineBytes / tile.prefetch_parts;
  [[maybe_unused]] auto prefetched =
      reinterpret_cast<const char*>(tile.panel + tile.prefetch_distance + k / 4 * prefetch_step);
  __m256i sums[kTokens * kCount] = {};
  do {
    if constexpr (kFirst == 0) {
      _mm_prefetch(prefetched, kTokens == 1 ? _MM_HINT_T0 : _MM_HINT_T1);
      prefetched += prefetch_step;
    }
    const __m256i codes = load(line);
    const __m256i fields[kCount] = {
        _mm256_and_si256(_mm256_srli_epi16(codes, 2 * (kFirst + static_cast<int>(kField))), low_field)...};
    const auto add_token = [&]<std::size_t kIndex>(std::integral_constant<std::size_t, kIndex>)
        __attribute__((always_inline)) {
      const __m256i four = broadcast4(q + static_cast<std::int64_t>(kIndex) * tile.q_stride);
      (add_to(sums[kIndex * kCount + kField], _mm256_maddubs_epi16(fields[kField], four)), ...);
    };
    (add_token(std::integral_constant<std::size_t, kToken>{}), ...);
    line += kLineBytes;
    q += 4;
  } while (line != end);

  const __m256i ones = _mm256_set1_epi16(1);
  const auto widen_token = [&]<std::size_t kIndex>(std::integral_constant<std::size_t, kIndex>)
      __attribute__((always_inline)) {
    (ending.add(k, kIndex, static_cast<std::size_t>(kFirst) + kField,
                _mm256_madd_epi16(sums[kIndex * kCount + kField], ones)),
     ...);
  };
  (widen_token(std::integral_constant<std::size_t, kToken>{}), ...);
}

template <int kTokens, int kFirst, int kCount, typename Ending>
[[gnu::always_inline]] inline void add_lines(const ProductTile& tile, const Ending& ending, std::int64_t k,
                                             std::int64_t lines) {
  add_lines<kTokens, kFirst, kCount>(tile, ending, k, lines, std::make_index_sequence<kCount>(),
                                     std::make_index_sequence<kTokens>());
}

/// `ending` takes the sums of q * (t + 1) of each ending.inputs(), at most 4 * kLinesPerFlush, one token and
/// field at a time: add(first input, token, field, sums of eight rows); next() comes after them.
template <int kTokens, typename Ending>
void run(const ProductTile& tile, Ending ending) {
  const std::int64_t inputs = ending.inputs();
  for (std::int64_t k = 0; k < tile.k; k += inputs) {
    const std::int64_t lines = (tile.k - k < inputs ? tile.k - k : inputs) / 4;
    if constexpr (kTokens <= 2) {
      add_lines<kTokens, 0, kFields>(tile, ending, k, lines);
    } else {
      add_lines<kTokens, 0, kFields / 2>(tile, ending, k, lines);
      add_lines<kTokens, kFields / 2, kFields / 2>(tile, ending, k, lines);
    }
    ending.next();
  }
}

}  // namespace
}  // namespace trit::avx2

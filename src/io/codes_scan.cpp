// SPDX-License-Identifier: MIT
//
// Passes over stored codes: how many are -1, 0 and +1; the checksum and the check in one, since for codes from a
// file in the page cache each pass waits for memory.
#include "io/codes_scan.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "base/crc32c_polynomial.h"
#include "base/crc32c_ways.h"
#include "format/code_two.h"
#include "io/write_plan.h"
#include "trit/crc32c.h"
#include "trit/io.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::io {
namespace {

CodesScan one_after_the_other(std::span<const std::uint8_t> codes, CodesScan before) {
  return {crc32c(std::as_bytes(codes), before.crc), before.has_two || has_code_two(codes)};
}

#if defined(__x86_64__)
constexpr std::size_t kFold = 256;
/// The hardware's own prefetch stops at every 4 KiB. From 4 KiB ahead on, the distance makes no difference.
constexpr std::size_t kPrefetchBytes = 8192;

/// crc32c_ways::folding, whose registers are looked at on the way.
[[gnu::target("sse4.2,avx512f,vpclmulqdq")]] CodesScan folding(std::span<const std::uint8_t> codes,
                                                               CodesScan before) {
  constexpr int kXorOfThree = 0x96;
  constexpr int kOrButNotThird = 0xf4;                                    // a | (b & ~c)
  constexpr long long kLow = crc32c_polynomial::fold_factor(kFold + 7);   // x^2111
  constexpr long long kHigh = crc32c_polynomial::fold_factor(kFold - 1);  // x^2047
  const __m512i factors = _mm512_set_epi64(kHigh, kLow, kHigh, kLow, kHigh, kLow, kHigh, kLow);
  __m512i lanes[4];
  // Odd bits: the high bit of a field is set and its low one, doubled, is not.
  __m512i high_only[4];
  for (std::size_t i = 0; i < 4; ++i) {
    lanes[i] = _mm512_loadu_si512(codes.data() + 64 * i);
    high_only[i] = _mm512_ternarylogic_epi64(_mm512_setzero_si512(), lanes[i],
                                             _mm512_add_epi64(lanes[i], lanes[i]), kOrButNotThird);
  }
  lanes[0] = _mm512_xor_si512(lanes[0], _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, ~before.crc));
  for (codes = codes.subspan(kFold); codes.size() >= kFold; codes = codes.subspan(kFold)) {
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint8_t* const at = codes.data() + 64 * i;
      _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
      const __m512i some = _mm512_loadu_si512(at);
      lanes[i] =
          _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lanes[i], factors, 0x00),
                                    _mm512_clmulepi64_epi128(lanes[i], factors, 0x11), some, kXorOfThree);
      high_only[i] =
          _mm512_ternarylogic_epi64(high_only[i], some, _mm512_add_epi64(some, some), kOrButNotThird);
    }
  }
  const __m512i twos = _mm512_or_si512(_mm512_or_si512(high_only[0], high_only[1]),
                                       _mm512_or_si512(high_only[2], high_only[3]));
  before.has_two =
      before.has_two ||
      _mm512_test_epi64_mask(twos, _mm512_set1_epi64(static_cast<long long>(0xaaaaaaaaaaaaaaaaU))) != 0;
  std::array<std::byte, kFold> text{};
  std::memcpy(text.data(), lanes, kFold);
  before.crc = ~crc32c_ways::instruction(text, 0);
  return one_after_the_other(codes, before);
}
#endif

}  // namespace

CodesScan scan_codes(std::span<const std::uint8_t> codes, CodesScan before) {
#if defined(__x86_64__)
  static const bool can_fold = crc32c_ways::can_fold();
  if (can_fold && codes.size() >= 2 * kFold) {
    return folding(codes, before);
  }
#endif
  return one_after_the_other(codes, before);
}

CodeCounts count_codes(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  CodeCounts counts;
  for_each_rows(checkpoint, tensor, [&](std::span<const std::uint8_t> codes, std::int64_t, std::int64_t) {
    for (const unsigned byte : codes) {
      counts.minus += std::popcount(byte & byte >> 1 & 0x55U);    // 3
      counts.plus += std::popcount(byte & ~(byte >> 1) & 0x55U);  // 1
    }
  });
  counts.zero = tensor.shape[0] * tensor.shape[1] - counts.minus - counts.plus;
  return counts;
}

}  // namespace trit::io

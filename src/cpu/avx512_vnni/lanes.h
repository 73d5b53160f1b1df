// SPDX-License-Identifier: MIT
//
// lane_sum (quantize.h) in sixteen registers: accumulator i mod 256 is lane i mod 16 of register (i / 16)
// mod 16. Only for the source files of this folder, which are compiled for AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace trit::avx512_vnni {
namespace {

/// How far ahead of a row that comes from memory to prefetch. The hardware's own prefetch stops at every 4
/// KiB.
constexpr std::int64_t kPrefetchBytes = 4096;

/// Fetches what lies kPrefetchBytes behind `data`; past the end of an array that is harmless.
[[gnu::always_inline]] inline void prefetch_ahead(const void* data) {
  _mm_prefetch(static_cast<const char*>(data) + kPrefetchBytes, _MM_HINT_T0);
}

/// The lowest `left` lanes of a register of 16, none or all where it is out of range.
[[gnu::always_inline]] inline __mmask16 first_lanes(std::int64_t left) {
  return left >= 16  ? __mmask16{0xffff}
         : left <= 0 ? __mmask16{0}
                     : static_cast<__mmask16>((1U << left) - 1U);
}

/// A compile-time value as an argument: argument() is a constant. (Not std::integral_constant: an unoptimised
/// build would emit it here, with AVX-512 encodings, for the linker to choose from for the whole library.)
template <auto kValue>
struct Constant {
  constexpr auto operator()() const { return kValue; }
};

/// function(0), ..., function(kCount - 1) with compile-time indices: arrays indexed by them are registers.
template <std::size_t kCount, typename Function>
[[gnu::always_inline]] inline void unrolled(const Function& function) {
  [&]<std::size_t... kIndex>(std::index_sequence<kIndex...>) __attribute__((always_inline)) {
    (function(Constant<kIndex>{}), ...);
  }
  (std::make_index_sequence<kCount>{});
}

/// Calls step(register, offset, mask) for every 16 terms of n in increasing order; register = offset / 16 mod
/// 16. `mask` is all ones but at the end, where empty steps fill up the last 256 terms: a step with
/// mask 0 must leave its accumulator as it is. `step` has a compile-time `kMasked` as its first argument.
template <typename Step>
[[gnu::always_inline]] inline void for_each_lane_register(std::int64_t n, const Step& step) {
  std::int64_t at = 0;
  for (; at + 256 <= n; at += 256) {
    unrolled<16>([&](auto index) __attribute__((always_inline)) {
      step(Constant<false>{}, index, at + 16 * static_cast<std::int64_t>(index()), __mmask16{0xffff});
    });
  }
  if (at < n) {
    unrolled<16>([&](auto index) __attribute__((always_inline)) {
      const std::int64_t offset = at + 16 * static_cast<std::int64_t>(index());
      step(Constant<true>{}, index, offset, first_lanes(n - offset));
    });
  }
}

/// The tree of lane_sum: acc[j] += acc[j + s] for s = 128, 64, ..., 1.
[[gnu::always_inline]] inline float tree_sum(__m512 (&acc)[16]) {
  unrolled<8>([&](auto j)
                  __attribute__((always_inline)) { acc[j()] = _mm512_add_ps(acc[j()], acc[j() + 8]); });
  unrolled<4>([&](auto j)
                  __attribute__((always_inline)) { acc[j()] = _mm512_add_ps(acc[j()], acc[j() + 4]); });
  unrolled<2>([&](auto j)
                  __attribute__((always_inline)) { acc[j()] = _mm512_add_ps(acc[j()], acc[j() + 2]); });
  const __m512 sixteen = _mm512_add_ps(acc[0], acc[1]);
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps(sixteen, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace
}  // namespace trit::avx512_vnni

// SPDX-License-Identifier: MIT
//
// From stored rows towards panels: what both layouts' preparations share.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/avx512_vnni/lanes.h"

namespace trit::avx512_vnni {
namespace {

/// Stored bytes of a row (4 inputs each) that become lines together: one 128-bit lane.
constexpr std::int64_t kBlockBytes = 16;

/// Fetches kCount lines of a panel 4 KiB behind `line`, to write to them: when a model is loaded, the kernel
/// has just cleared them, a huge page at a time, and they have left L2 again (a tenth of the preparation's
/// time).
template <std::int64_t kCount>
[[gnu::always_inline]] inline void prefetch_lines(const std::uint8_t* line) {
  for (std::int64_t i = 0; i < kCount; ++i) {
    __builtin_prefetch(line + 4096 + 64 * i, 1, 3);
  }
}

/// Four rows x 16 stored bytes, a 128-bit lane a row -> 16 dwords, one per line: the dword's byte i is row l
/// of the panel at input offset i, its 2-bit field j is row l + 16 j, still in two's
/// complement.
[[gnu::always_inline]] inline __m512i four_rows_to_dwords(__m512i rows) {
  // Dwords of the four rows side by side, then a 4x4 byte transposition: dword g = bytes g of the four rows.
  const __m512i beside =
      _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), rows);
  const __m512i bytes = _mm512_shuffle_epi8(
      beside, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
  // Byte j, field i -> byte i, field j: two exchanges of bit pairs, at distance 6 and 12.
  // (a ^ b) & c is truth table 0x28, a ^ b ^ c is 0x96.
  const __m512i near =
      _mm512_ternarylogic_epi32(_mm512_srli_epi32(bytes, 6), bytes, _mm512_set1_epi32(0x00cc00cc), 0x28);
  const __m512i swapped = _mm512_ternarylogic_epi32(bytes, near, _mm512_slli_epi32(near, 6), 0x96);
  const __m512i far =
      _mm512_ternarylogic_epi32(_mm512_srli_epi32(swapped, 12), swapped, _mm512_set1_epi32(0x0000f0f0), 0x28);
  return _mm512_ternarylogic_epi32(swapped, far, _mm512_slli_epi32(far, 12), 0x96);
}

/// Row l's dwords, [16] registers, to lines, [16] registers: out[g] dword l = in[l] dword g.
[[gnu::always_inline]] inline void transpose(__m512i (&d)[16]) {
  __m512i pairs[16], quads[16];
  unrolled<8>([&](auto i) __attribute__((always_inline)) {
    pairs[2 * i()] = _mm512_unpacklo_epi32(d[2 * i()], d[2 * i() + 1]);
    pairs[2 * i() + 1] = _mm512_unpackhi_epi32(d[2 * i()], d[2 * i() + 1]);
  });
  unrolled<4>([&](auto i) __attribute__((always_inline)) {
    quads[4 * i()] = _mm512_unpacklo_epi64(pairs[4 * i()], pairs[4 * i() + 2]);
    quads[4 * i() + 1] = _mm512_unpackhi_epi64(pairs[4 * i()], pairs[4 * i() + 2]);
    quads[4 * i() + 2] = _mm512_unpacklo_epi64(pairs[4 * i() + 1], pairs[4 * i() + 3]);
    quads[4 * i() + 3] = _mm512_unpackhi_epi64(pairs[4 * i() + 1], pairs[4 * i() + 3]);
  });
  unrolled<4>([&](auto c) __attribute__((always_inline)) {
    const __m512i even01 = _mm512_shuffle_i32x4(quads[c()], quads[4 + c()], 0x88);
    const __m512i odd01 = _mm512_shuffle_i32x4(quads[c()], quads[4 + c()], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(quads[8 + c()], quads[12 + c()], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(quads[8 + c()], quads[12 + c()], 0xdd);
    d[c()] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    d[4 + c()] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    d[8 + c()] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    d[12 + c()] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
  });
}

/// Sixteen stored bytes of rows l, l + 16, l + 32, l + 48.
[[gnu::always_inline]] inline __m512i load_rows(const std::uint8_t* codes, std::int64_t row_bytes) {
  const auto row = [&](std::int64_t j) __attribute__((always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * j * row_bytes));
  };
  __m512i rows = _mm512_castsi128_si512(row(0));
  rows = _mm512_inserti32x4(rows, row(1), 1);
  rows = _mm512_inserti32x4(rows, row(2), 2);
  return _mm512_inserti32x4(rows, row(3), 3);
}

/// The same for a panel of fewer rows or the last bytes of a row: what is missing is zero, a zero weight.
[[gnu::always_inline]] inline __m512i load_rows_partly(const std::uint8_t* codes, std::int64_t row_bytes,
                                                       std::int64_t rows, __mmask16 bytes) {
  const auto row = [&](std::int64_t j) __attribute__((always_inline)) {
    return 16 * j < rows ? _mm_maskz_loadu_epi8(bytes, codes + 16 * j * row_bytes) : _mm_setzero_si128();
  };
  __m512i all = _mm512_castsi128_si512(row(0));
  all = _mm512_inserti32x4(all, row(1), 1);
  all = _mm512_inserti32x4(all, row(2), 2);
  return _mm512_inserti32x4(all, row(3), 3);
}

/// A panel, 16 lines at a time. dwords(from) and dwords_partly(from, rows, bytes) make 16 lines' dwords of
/// the panel rows l, l + 16, l + 32, ..., of which `from` is the first one's next bytes; partly: `rows`
/// counts from row l on, and what is missing is a zero weight.
template <typename Dwords, typename DwordsPartly>
[[gnu::always_inline]] inline void prepare_lines(const std::uint8_t* codes, std::int64_t row_bytes,
                                                 std::int64_t rows, std::int64_t panel_rows,
                                                 std::int64_t in_features, std::uint8_t* panel,
                                                 const Dwords& dwords, const DwordsPartly& dwords_partly) {
  constexpr std::int64_t kLineBytes = 64;
  const std::int64_t lines = (in_features + 3) / 4;
  std::int64_t line = 0;
  __m512i d[16];
  if (rows == panel_rows) {
    for (; line + kBlockBytes <= lines; line += kBlockBytes) {
      prefetch_lines<kBlockBytes>(panel + line * kLineBytes);
      unrolled<16>([&](auto l) __attribute__((always_inline)) {
        d[l()] = dwords(codes + line + static_cast<std::int64_t>(l()) * row_bytes);
      });
      transpose(d);
      unrolled<16>([&](auto g) __attribute__((always_inline)) {
        _mm512_storeu_si512(panel + (line + static_cast<std::int64_t>(g())) * kLineBytes, d[g()]);
      });
    }
  }
  for (; line < lines; line += kBlockBytes) {
    const __mmask16 bytes = first_lanes(lines - line);
    for (std::int64_t l = 0; l < 16; ++l) {
      d[l] = dwords_partly(codes + line + l * row_bytes, rows - l, bytes);
    }
    transpose(d);
    for (std::int64_t g = 0; g < kBlockBytes && line + g < lines; ++g) {
      _mm512_storeu_si512(panel + (line + g) * kLineBytes, d[g]);
    }
  }
}

}  // namespace
}  // namespace trit::avx512_vnni

// SPDX-License-Identifier: MIT
//
// Weights, AVX-512: the stored form to panels, and what training does to the float matrix at each step
// (docs/design/cpu-rows.md).
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/lanes.h"
#include "cpu/avx512_vnni/stored_rows.h"

namespace trit::avx512_vnni {
namespace {

constexpr std::int64_t kPanelRows = 64;

/// Two's complement to t + 1, in each field: (high, low) -> (high ^ low, !low): 0 -> 1, 1 -> 2, 3 -> 0.
[[gnu::always_inline]] inline __m512i to_codes(__m512i fields) {
  const __m512i low = _mm512_set1_epi32(0x55555555);
  constexpr int kNotFirstOrXor = 0x1e;  // low ? ~a : a ^ b
  return _mm512_ternarylogic_epi32(fields, _mm512_add_epi32(fields, fields), low, kNotFirstOrXor);
}

constexpr int kSelect = 0xe4;  // third ? first : second
/// The fields of x and y that `mask` has and its complement has not, y's moved up to lie beside x's.
template <int kBits>
[[gnu::always_inline]] inline __m512i lower_fields(__m512i x, __m512i y, __m512i mask) {
  return _mm512_ternarylogic_epi32(x, _mm512_slli_epi16(y, kBits), mask, kSelect);
}
/// The others, x's moved down.
template <int kBits>
[[gnu::always_inline]] inline __m512i upper_fields(__m512i x, __m512i y, __m512i mask) {
  return _mm512_ternarylogic_epi32(_mm512_srli_epi16(x, kBits), y, mask, kSelect);
}

/// 64 stored bytes of rows l, l + 16, l + 32, l + 48 -> 64 dwords, one per line: dword r of lane j of
/// dwords[q] belongs to line 16 j + 4 q + r.
[[gnu::always_inline]] inline void four_rows_to_dwords(const std::uint8_t* codes, std::int64_t row_bytes,
                                                       __m512i (&dwords)[4][16], std::size_t l) {
  const auto row = [&](std::int64_t j) __attribute__((always_inline)) {
    return to_codes(_mm512_loadu_si512(codes + 16 * j * row_bytes));
  };
  const __m512i a = row(0), b = row(1), c = row(2), d = row(3);
  // Field i of the four rows into one byte, by two exchanges: the rows' bytes become the offsets' bytes.
  const __m512i even = _mm512_set1_epi8(0x33);
  const __m512i low = _mm512_set1_epi8(0x0f);
  const __m512i ab02 = lower_fields<2>(a, b, even), ab13 = upper_fields<2>(a, b, even);
  const __m512i cd02 = lower_fields<2>(c, d, even), cd13 = upper_fields<2>(c, d, even);
  const __m512i offset0 = lower_fields<4>(ab02, cd02, low), offset1 = lower_fields<4>(ab13, cd13, low);
  const __m512i offset2 = upper_fields<4>(ab02, cd02, low), offset3 = upper_fields<4>(ab13, cd13, low);
  // The four offsets side by side.
  const __m512i first01 = _mm512_unpacklo_epi8(offset0, offset1);
  const __m512i first23 = _mm512_unpacklo_epi8(offset2, offset3);
  const __m512i last01 = _mm512_unpackhi_epi8(offset0, offset1);
  const __m512i last23 = _mm512_unpackhi_epi8(offset2, offset3);
  dwords[0][l] = _mm512_unpacklo_epi16(first01, first23);
  dwords[1][l] = _mm512_unpackhi_epi16(first01, first23);
  dwords[2][l] = _mm512_unpacklo_epi16(last01, last23);
  dwords[3][l] = _mm512_unpackhi_epi16(last01, last23);
}

/// 64 lines of a whole panel.
inline void prepare_64_lines(const std::uint8_t* codes, std::int64_t row_bytes, std::uint8_t* panel) {
  __m512i dwords[4][16];
  for (std::size_t l = 0; l < 16; ++l) {
    prefetch_lines<4>(panel + 64 * 4 * l);
    four_rows_to_dwords(codes + static_cast<std::int64_t>(l) * row_bytes, row_bytes, dwords, l);
  }
  for (std::size_t q = 0; q < 4; ++q) {
    __m512i d[16];
    unrolled<16>([&](auto l) __attribute__((always_inline)) { d[l()] = dwords[q][l()]; });
    transpose(d);
    unrolled<16>([&](auto g) __attribute__((always_inline)) {
      _mm512_storeu_si512(panel + 64 * (16 * (g() / 4) + 4 * q + g() % 4), d[g()]);
    });
  }
}

}  // namespace

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                   std::int64_t in_features, std::uint8_t* panel) {
  if (rows == kPanelRows) {
    for (; in_features >= 4 * 64; in_features -= 4 * 64) {
      prepare_64_lines(codes, row_bytes, panel);
      codes += 64;
      panel += 64 * 64;
    }
  }
  prepare_lines(
      codes, row_bytes, rows, kPanelRows, in_features, panel,
      [&](const std::uint8_t* from) __attribute__((always_inline)) {
        return to_codes(four_rows_to_dwords(load_rows(from, row_bytes)));
      },
      [&](const std::uint8_t* from, std::int64_t left, __mmask16 bytes) __attribute__((always_inline)) {
        return to_codes(four_rows_to_dwords(load_rows_partly(from, row_bytes, left, bytes)));
      });
}

float abs_sum_row(const float* w, std::int64_t in_features) {
  const __m512 magnitude = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  __m512 acc[16] = {};
  for_each_lane_register(
      in_features, [&](auto masked, auto index, std::int64_t at,
                       __mmask16 mask) __attribute__((always_inline)) {
        prefetch_ahead(w + at);
        const __m512 v = masked() ? _mm512_maskz_loadu_ps(mask, w + at) : _mm512_loadu_ps(w + at);
        acc[index()] = _mm512_add_ps(acc[index()], _mm512_and_ps(v, magnitude));
      });
  return tree_sum(acc);
}

namespace {

/// Sixteen weights to -1, 0 or +1 as int32, INT32_MIN where w * inverse is NaN.
[[gnu::always_inline]] inline __m512i ternarize(__m512 w, __m512 inverse) {
  const __m512 scaled = _mm512_mul_ps(w, inverse);
  // max and min return their second operand where one is NaN.
  const __m512 clamped = _mm512_min_ps(_mm512_set1_ps(1.0F), _mm512_max_ps(_mm512_set1_ps(-1.0F), scaled));
  return _mm512_cvtps_epi32(clamped);
}

/// 64 weights, as four registers of ternarize(), to 16 stored bytes.
[[gnu::always_inline]] inline __m128i pack(__m512i t0, __m512i t1, __m512i t2, __m512i t3) {
  // Bytes -1, 0, +1, or -128 for NaN: its low two bits are those of 0. Each dword has four inputs in order;
  // the packs leave dwords in the order 0, 4, 8, 12, 1, ...
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(t0, t1), _mm512_packs_epi32(t2, t3));
  const __m512i codes = _mm512_and_si512(bytes, _mm512_set1_epi8(3));
  // c0 + 4 c1 + 16 c2 + 64 c3 in each dword.
  const __m512i joined = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_set1_epi32(0x40100401));
  return _mm_shuffle_epi8(_mm512_cvtepi32_epi8(joined),
                          _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}

}  // namespace

void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes) {
  const __m512 factor = _mm512_set1_ps(inverse);
  std::int64_t at = 0;
  for (; at + 64 <= in_features; at += 64) {
    const auto t = [&](std::int64_t part) __attribute__((always_inline)) {
      prefetch_ahead(w + at + 16 * part);
      return ternarize(_mm512_loadu_ps(w + at + 16 * part), factor);
    };
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + at / 4), pack(t(0), t(1), t(2), t(3)));
  }
  if (at < in_features) {
    const auto t = [&](std::int64_t part) __attribute__((always_inline)) {
      const std::int64_t first = at + 16 * part;
      return ternarize(_mm512_maskz_loadu_ps(first_lanes(in_features - first), w + first), factor);
    };
    // A masked weight is 0, or NaN where the factor is not finite: code 0 both.
    _mm_mask_storeu_epi8(codes + at / 4, first_lanes((in_features - at + 3) / 4),
                         pack(t(0), t(1), t(2), t(3)));
  }
}

void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w) {
  // Indexed by the low four bits of a shifted word: the code of the lane in the lower two, that of the next
  // lane, ignored by repetition, in the upper two. Products, so that a scale that is not finite acts as t *
  // scale.
  const __m512 table = _mm512_mul_ps(_mm512_set1_ps(scale),
                                     _mm512_setr_ps(0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1));
  const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const auto sixteen = [&](std::uint32_t word) __attribute__((always_inline)) {
    const __m512i index = _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<std::int32_t>(word)), shifts);
    return _mm512_permutexvar_ps(index, table);
  };
  std::int64_t at = 0;
  for (; at + 16 <= in_features; at += 16) {
    std::uint32_t word;
    std::memcpy(&word, codes + at / 4, sizeof(word));
    _mm512_storeu_ps(w + at, sixteen(word));
  }
  if (at < in_features) {
    std::uint32_t word = 0;
    std::memcpy(&word, codes + at / 4, static_cast<std::size_t>((in_features - at + 3) / 4));
    _mm512_mask_storeu_ps(w + at, first_lanes(in_features - at), sixteen(word));
  }
}

}  // namespace trit::avx512_vnni

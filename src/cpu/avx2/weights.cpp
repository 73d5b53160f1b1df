// SPDX-License-Identifier: MIT
#include <immintrin.h>

#include <cstring>

#include "cpu/avx2/avx2.h"
#include "cpu/avx2/lanes.h"

namespace trit::avx2 {
namespace {

// Stored codes (two's complement) to t + 1, in each 2-bit field: add 1 modulo 4, without carries across
// fields.
__m256i plus_one(__m256i codes) {
  const __m256i low = _mm256_andnot_si256(codes, _mm256_set1_epi8(0x55));
  const __m256i high = _mm256_xor_si256(codes, _mm256_slli_epi16(codes, 1));
  return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(static_cast<char>(0xaa))));
}

// Exchanges in each 32-bit lane the bits of `mask` with those `shift` above them.
template <int kShift>
__m256i exchange(__m256i v, int mask) {
  const __m256i changed =
      _mm256_and_si256(_mm256_xor_si256(v, _mm256_srli_epi32(v, kShift)), _mm256_set1_epi32(mask));
  return _mm256_xor_si256(v, _mm256_xor_si256(changed, _mm256_slli_epi32(changed, kShift)));
}

// Each 32-bit lane is a 4 x 4 matrix of 2-bit codes, byte f = row l + 8f and field o = input o; a line wants
// byte o = input o and field f = row l + 8f: its transpose, by two rounds of exchanges off the diagonal.
__m256i transpose(__m256i v) { return exchange<12>(exchange<6>(v, 0x00cc00cc), 0x0000f0f0); }

// Byte kByte of the four words, as bytes 0..3.
template <int kByte>
__m256i pick(const __m256i (&words)[kFields]) {
  const __m256i low = _mm256_set1_epi32(0xff);
  __m256i picked = _mm256_and_si256(_mm256_srli_epi32(words[0], 8 * kByte), low);
  picked = _mm256_or_si256(
      picked, _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(words[1], 8 * kByte), low), 8));
  picked = _mm256_or_si256(
      picked, _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(words[2], 8 * kByte), low), 16));
  return _mm256_or_si256(picked, _mm256_slli_epi32(_mm256_srli_epi32(words[3], 8 * kByte), 24));
}

void store_line(std::uint8_t* panel, __m256i codes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel), transpose(plus_one(codes)));
}

// Four stored bytes of all rows of a panel to its four lines.
template <bool kAllRows>
void prepare_four_lines(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                        std::uint8_t* panel) {
  const auto word = [&](std::int64_t row) {
    std::int32_t four = 0;
    if (kAllRows || row < rows) {
      std::memcpy(&four, codes + row * row_bytes, 4);
    }
    return four;
  };
  __m256i words[kFields];
  for (int f = 0; f < kFields; ++f) {
    const std::int64_t row = 8 * f;
    words[f] = _mm256_setr_epi32(word(row), word(row + 1), word(row + 2), word(row + 3), word(row + 4),
                                 word(row + 5), word(row + 6), word(row + 7));
  }
  store_line(panel + 0 * kLineBytes, pick<0>(words));
  store_line(panel + 1 * kLineBytes, pick<1>(words));
  store_line(panel + 2 * kLineBytes, pick<2>(words));
  store_line(panel + 3 * kLineBytes, pick<3>(words));
}

}  // namespace

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                   std::int64_t /*in_features*/, std::uint8_t* panel) {
  std::int64_t j = 0;
  for (; j + 4 <= row_bytes; j += 4) {
    if (rows == kPanelRows) {
      prepare_four_lines<true>(codes + j, row_bytes, rows, panel + j * kLineBytes);
    } else {
      prepare_four_lines<false>(codes + j, row_bytes, rows, panel + j * kLineBytes);
    }
  }
  for (; j < row_bytes; ++j) {
    alignas(32) std::uint8_t line[kLineBytes] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
      line[4 * (row % 8) + row / 8] = codes[row * row_bytes + j];
    }
    store_line(panel + j * kLineBytes, _mm256_load_si256(reinterpret_cast<const __m256i*>(line)));
  }
}

float abs_sum_row(const float* w, std::int64_t in_features) {
  Lanes lanes;
  std::int64_t k = 0;
  for (; k + 8 <= in_features; k += 8) {
    _mm256_store_ps(lanes.at(k),
                    _mm256_add_ps(_mm256_load_ps(lanes.at(k)), absolute(_mm256_loadu_ps(w + k))));
  }
  if (k < in_features) {
    const __m256 last = absolute(load_partial<Float32>(w + k, in_features - k));
    _mm256_store_ps(lanes.at(k), _mm256_add_ps(_mm256_load_ps(lanes.at(k)), last));
  }
  return lanes.tree_sum();
}

namespace {

// clamp(rint(v), -1, 1), 0 for NaN: +1 above one half, -1 below minus one half (ties round to the even 0).
__m256i ternary(__m256 v) {
  const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(0.5F), _CMP_GT_OQ));
  const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_set1_ps(-0.5F), _CMP_LT_OQ));
  return _mm256_sub_epi32(below, above);
}

// 8 x int32 in {-1, 0, 1} to 2 stored bytes, in the low 16 bits.
std::uint32_t pack8(__m256i t) {
  const auto negative = static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(t)));
  const __m256i odd = _mm256_slli_epi32(t, 31);
  const auto nonzero = static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(odd)));
  // Spread 8 bits to the even bits of 16.
  const auto spread = [](std::uint32_t bits) {
    bits = (bits | (bits << 4)) & 0x0f0fU;
    bits = (bits | (bits << 2)) & 0x3333U;
    return (bits | (bits << 1)) & 0x5555U;
  };
  return spread(nonzero) | (spread(negative) << 1);
}

}  // namespace

void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes) {
  const __m256 factor = _mm256_set1_ps(inverse);
  const auto eight = [&](std::int64_t k) { return ternary(_mm256_mul_ps(_mm256_loadu_ps(w + k), factor)); };
  std::int64_t k = 0;
  for (; k + 32 <= in_features; k += 32) {
    const __m256i words = _mm256_packs_epi32(eight(k), eight(k + 8));
    const __m256i more = _mm256_packs_epi32(eight(k + 16), eight(k + 24));
    // 32 bytes in {0, 1, 3}, out of order in groups of 4; then c0 + 4 c1 and + 16 (c2 + 4 c3) in each group.
    const __m256i bytes = _mm256_and_si256(_mm256_packs_epi16(words, more), _mm256_set1_epi8(3));
    const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0401));
    const __m256i quads = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
    const __m256i ordered = _mm256_permutevar8x32_epi32(quads, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i shorts =
        _mm_packus_epi32(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + k / 4), _mm_packus_epi16(shorts, shorts));
  }
  for (; k < in_features; k += 8) {
    const std::int64_t count = in_features - k < 8 ? in_features - k : 8;
    const std::uint32_t two =
        pack8(count == 8 ? eight(k) : ternary(_mm256_mul_ps(load_partial<Float32>(w + k, count), factor)));
    codes[k / 4] = static_cast<std::uint8_t>(two);
    if (count > 4) {
      codes[k / 4 + 1] = static_cast<std::uint8_t>(two >> 8);
    }
  }
}

void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w) {
  const __m256 beta = _mm256_set1_ps(scale);
  const __m256i to_top = _mm256_setr_epi32(30, 28, 26, 24, 22, 20, 18, 16);
  const auto eight = [&](std::uint32_t two) {
    // Field i to the top two bits of lane i, then down with its sign.
    const __m256i top = _mm256_sllv_epi32(_mm256_set1_epi32(static_cast<int>(two)), to_top);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srai_epi32(top, 30)), beta);
  };
  std::int64_t k = 0;
  for (; k + 8 <= in_features; k += 8) {
    _mm256_storeu_ps(w + k, eight(codes[k / 4] | static_cast<std::uint32_t>(codes[k / 4 + 1]) << 8));
  }
  if (k < in_features) {
    const std::uint32_t second = k + 4 < in_features ? codes[k / 4 + 1] : 0U;
    alignas(32) float last[8];
    _mm256_store_ps(last, eight(codes[k / 4] | second << 8));
    std::memcpy(w + k, last, static_cast<std::size_t>(in_features - k) * 4);
  }
}

}  // namespace trit::avx2

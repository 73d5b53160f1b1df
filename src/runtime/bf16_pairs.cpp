// SPDX-License-Identifier: MIT
//
// Built with AVX-512 flags where the compiler has them: only a CPU with AMX comes here.
#include "runtime/bf16_pairs.h"

#include <algorithm>
#include <bit>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace trit::runtime {
namespace {

constexpr std::uint32_t kExponent = 0x7f800000U;
constexpr std::int64_t kPixelsPerTask = 256;

/// To nearest even; the caller has looked for NaN.
std::uint16_t rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float widened(std::uint16_t bf16) { return std::bit_cast<float>(std::uint32_t{bf16} << 16); }

bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & kExponent) != kExponent; }

#if defined(__AVX512BF16__)
void split_pixel(const float* x, std::int64_t channels, std::uint16_t* y) {
  const __m512i exponent = _mm512_set1_epi32(static_cast<int>(kExponent));
  for (std::int64_t c = 0; c < channels; c += 16) {
    const auto valid = static_cast<__mmask16>((1U << std::min<std::int64_t>(16, channels - c)) - 1);
    const __m512 whole = _mm512_maskz_loadu_ps(valid, x + c);
    const auto h = (__m256i)_mm512_maskz_cvtneps_pbh(valid, whole);
    // Masked, though all 16 could be moved: gcc 12 warns of its own header in the other form (bug 105593).
    const __m512i back = _mm512_maskz_slli_epi32(valid, _mm512_maskz_cvtepu16_epi32(valid, h), 16);
    const __mmask16 finite =
        _mm512_mask_cmpneq_epi32_mask(valid, _mm512_maskz_and_epi32(valid, back, exponent), exponent);
    const auto m = (__m256i)_mm512_maskz_cvtneps_pbh(
        valid, _mm512_maskz_sub_ps(finite, whole, _mm512_castsi512_ps(back)));
    _mm256_mask_storeu_epi16(y + c, valid, h);
    _mm256_mask_storeu_epi16(y + channels + c, valid, h);
    _mm256_mask_storeu_epi16(y + 2 * channels + c, valid, m);
  }
}
#else
void split_pixel(const float* x, std::int64_t channels, std::uint16_t* y) {
  for (std::int64_t c = 0; c < channels; ++c) {
    const auto factors = input_factors(bf16_pair(x[c]));
    for (std::int64_t p = 0; p < kBf16Products; ++p) {
      y[p * channels + c] = factors[static_cast<std::size_t>(p)];
    }
  }
}
#endif

}  // namespace

Bf16Pair bf16_pair(float x) {
  if (!is_finite(x)) {  // a NaN's leading bits may be an infinity's: the quiet bit is set
    const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
    return {x == x ? bits : static_cast<std::uint16_t>(bits | 0x40U), 0};
  }
  const std::uint16_t h = rounded(x);
  return {h, is_finite(widened(h)) ? rounded(x - widened(h)) : std::uint16_t{0}};
}

void split_pixels(Parallel& parallel, const float* x, std::int64_t pixels, std::int64_t channels,
                  std::uint16_t* y) {
  parallel.run((pixels + kPixelsPerTask - 1) / kPixelsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(pixels, (task + 1) * kPixelsPerTask);
    for (std::int64_t i = task * kPixelsPerTask; i < end; ++i) {
      split_pixel(x + i * channels, channels, y + i * kBf16Products * channels);
    }
  });
}

}  // namespace trit::runtime

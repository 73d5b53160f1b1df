// SPDX-License-Identifier: MIT
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
#include <immintrin.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "cpu/avx2/avx2.h"

namespace trit::avx2 {
namespace {

constexpr std::int64_t kLinesPerFlush = 64;

__m256i broadcast4(const std::int8_t* q) {
  std::int32_t four = 0;
  std::memcpy(&four, q, 4);
  return _mm256_set1_epi32(four);
}

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// sum += product in int16, in the register that holds the sum: left to itself gcc 12 adds into the product's
// register and copies it back, one more instruction for each sum and line.
[[gnu::always_inline]] inline void add_to(__m256i& sum, __m256i product) {
  __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(product));
}

// At most kLinesPerFlush lines from input k on: the fields [kFirst, kFirst + kCount) of all tokens. Sums are
// indexed by packs, not loops, so that they are registers from the compilers' first pass on: in loops gcc 12
// gives some of them a home on the stack.
template <int kTokens, int kFirst, int kCount, std::size_t... kField, std::size_t... kToken>
[[gnu::always_inline]] inline void add_lines(const ProductTile& tile, std::int64_t k, std::int64_t lines,
                                             std::index_sequence<kField...> /*fields*/,
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
    const __m256i correction = _mm256_set1_epi32(tile.q_sum[kIndex]);
    auto* acc = reinterpret_cast<__m256i*>(tile.acc + kIndex * kPanelRows + 8 * kFirst);
    const auto widen = [&](__m256i sum, __m256i * to) __attribute__((always_inline)) {
      const __m256i wide = _mm256_madd_epi16(sum, ones);
      _mm256_storeu_si256(to, k == 0 ? _mm256_sub_epi32(wide, correction) : _mm256_add_epi32(wide, load(to)));
    };
    (widen(sums[kIndex * kCount + kField], acc + kField), ...);
  };
  (widen_token(std::integral_constant<std::size_t, kToken>{}), ...);
}

template <int kTokens, int kFirst, int kCount>
[[gnu::always_inline]] inline void add_lines(const ProductTile& tile, std::int64_t k, std::int64_t lines) {
  add_lines<kTokens, kFirst, kCount>(tile, k, lines, std::make_index_sequence<kCount>(),
                                     std::make_index_sequence<kTokens>());
}

template <int kTokens>
void run(const ProductTile& tile) {
  for (std::int64_t k = 0; k < tile.k; k += 4 * kLinesPerFlush) {
    const std::int64_t left = (tile.k - k) / 4;
    const std::int64_t lines = left < kLinesPerFlush ? left : kLinesPerFlush;
    if constexpr (kTokens <= 2) {
      add_lines<kTokens, 0, kFields>(tile, k, lines);
    } else {
      add_lines<kTokens, 0, kFields / 2>(tile, k, lines);
      add_lines<kTokens, kFields / 2, kFields / 2>(tile, k, lines);
    }
  }
}

}  // namespace

void product_tile(const ProductTile& tile) {
  switch (tile.tokens) {
    case 1:
      return run<1>(tile);
    case 2:
      return run<2>(tile);
    case 3:
      return run<3>(tile);
    default:
      return run<4>(tile);
  }
}

namespace {

// float -> bfloat16, half to even, in integers (float_to_bfloat16). A NaN, which comes out of arithmetic and
// so is quiet, keeps its upper half: rounded it could carry into the sign.
__m128i to_bfloat16(__m256 y) {
  const __m256i bits = _mm256_castps_si256(y);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(y, y, _CMP_UNORD_Q));
  const __m256i half = _mm256_blendv_epi8(rounded, high, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// 8 results to y[0..count). vcvtps2ph rounds half to even by its immediate and keeps denormals.
void store(const EpilogueRow& row, std::int64_t at, __m256 y, std::int64_t count) {
  if (row.y_type == DataType::float32) {
    alignas(32) float all[8];
    float* out = static_cast<float*>(row.y) + at;
    if (count == 8) {
      _mm256_storeu_ps(out, y);
    } else {
      _mm256_store_ps(all, y);
      std::memcpy(out, all, static_cast<std::size_t>(count) * 4);
    }
    return;
  }
  const __m128i half = row.y_type == DataType::bfloat16
                           ? to_bfloat16(y)
                           : _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  std::uint16_t* out = static_cast<std::uint16_t*>(row.y) + at;
  if (count == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), half);
  } else {
    alignas(16) std::uint16_t all[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(all), half);
    std::memcpy(out, all, static_cast<std::size_t>(count) * 2);
  }
}

}  // namespace

void epilogue_row(const EpilogueRow& row) {
  const __m256 token_scale = _mm256_set1_ps(row.token_scale);
  for (std::int64_t at = 0; at < row.rows; at += 8) {
    const std::int64_t count = row.rows - at < 8 ? row.rows - at : 8;
    // The first `count` lanes.
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256 acc = row.sums != nullptr ? _mm256_maskload_ps(row.sums + at, mask)
                                           : _mm256_cvtepi32_ps(_mm256_maskload_epi32(row.acc + at, mask));
    const __m256 beta = row.weight_scale_per_row ? _mm256_maskload_ps(row.weight_scale + at, mask)
                                                 : _mm256_broadcast_ss(row.weight_scale);
    __m256 y = _mm256_mul_ps(_mm256_mul_ps(acc, token_scale), beta);
    if (row.bias != nullptr) {
      y = _mm256_add_ps(y, _mm256_maskload_ps(row.bias + at, mask));
    }
    store(row, at, y, count);
  }
}

void group_row(const GroupRow& row, std::int64_t panel_rows) {
  const __m256 token_scale = _mm256_set1_ps(row.token_scale);
  const auto* const half = static_cast<const __m128i*>(row.weight_scale.values);
  const auto* const whole = static_cast<const float*>(row.weight_scale.values);
  const bool is_half = row.weight_scale.type == DataType::float16;
  for (std::int64_t at = 0; at < panel_rows; at += 8) {
    const __m256 beta =
        is_half ? _mm256_cvtph_ps(_mm_loadu_si128(half + at / 8)) : _mm256_loadu_ps(whole + at);
    const __m256 acc = _mm256_cvtepi32_ps(load(row.acc + at));
    _mm256_storeu_ps(row.sums + at,
                     _mm256_fmadd_ps(acc, _mm256_mul_ps(beta, token_scale), _mm256_loadu_ps(row.sums + at)));
  }
}

}  // namespace trit::avx2

// SPDX-License-Identifier: MIT
//
// From sums to results, 16 of a row at a time. Only for source files that are compiled for AVX-512.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/avx512_vnni/lanes.h"
#include "cpu/table.h"

namespace trit::avx512_vnni {
namespace {

/// Sixteen prepared scales to float: exact, and denormals are kept whatever MXCSR says.
template <typename Stored>
[[gnu::always_inline]] inline __m512 load_scales(const void* values, std::int64_t at) {
  if constexpr (sizeof(Stored) == 2) {
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const std::uint16_t*>(values) + at)));
  } else {
    return _mm512_loadu_ps(static_cast<const float*>(values) + at);
  }
}

/// float_to_bfloat16 of sixteen values, in integers: vcvtneps2bf16 flushes denormals.
[[gnu::always_inline]] inline __m256i to_bfloat16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}

/// Results [0, end) of the row in float32, `end` a multiple of 16: what epilogue_16 gives, without its masks,
/// which Zen 4 takes 13.6 ns for 64 results with, and 8.0 without.
inline void epilogue_whole(const EpilogueRow& args, std::int64_t end) {
  const __m512 token_scale = _mm512_set1_ps(args.token_scale);
  const __m512 scale = _mm512_set1_ps(*args.weight_scale);
  float* const y = static_cast<float*>(args.y);
  const auto rows = [&](auto scale_per_row, auto has_bias) __attribute__((always_inline)) {
    for (std::int64_t at = 0; at < end; at += 16) {
      const __m512 acc = _mm512_cvtepi32_ps(_mm512_loadu_si512(args.acc + at));
      __m512 result = _mm512_mul_ps(acc, token_scale);
      result = _mm512_mul_ps(result, scale_per_row() ? _mm512_loadu_ps(args.weight_scale + at) : scale);
      if (has_bias()) {
        result = _mm512_add_ps(result, _mm512_loadu_ps(args.bias + at));
      }
      _mm512_storeu_ps(y + at, result);
    }
  };
  if (args.sums != nullptr) {
    for (std::int64_t at = 0; at < end; at += 16) {
      const __m512 result = _mm512_mul_ps(_mm512_loadu_ps(args.sums + at), token_scale);
      _mm512_storeu_ps(
          y + at, args.bias != nullptr ? _mm512_add_ps(result, _mm512_loadu_ps(args.bias + at)) : result);
    }
    return;
  }
  if (args.weight_scale_per_row) {
    args.bias != nullptr ? rows(Constant<true>{}, Constant<true>{})
                         : rows(Constant<true>{}, Constant<false>{});
  } else {
    args.bias != nullptr ? rows(Constant<false>{}, Constant<true>{})
                         : rows(Constant<false>{}, Constant<false>{});
  }
}

/// Results [at, at + 16) of the row, those that it has.
[[gnu::always_inline]] inline void epilogue_16(const EpilogueRow& args, std::int64_t at) {
  const __mmask16 rows = first_lanes(args.rows - at);
  const __m512 scale = args.weight_scale_per_row ? _mm512_maskz_loadu_ps(rows, args.weight_scale + at)
                                                 : _mm512_set1_ps(*args.weight_scale);
  const __m512 acc = args.sums != nullptr ? _mm512_maskz_loadu_ps(rows, args.sums + at)
                                          : _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(rows, args.acc + at));
  __m512 y = _mm512_mul_ps(_mm512_mul_ps(acc, _mm512_set1_ps(args.token_scale)), scale);
  if (args.bias != nullptr) {
    y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(rows, args.bias + at));
  }
  switch (args.y_type) {
    case DataType::float32:
      if (args.non_temporal && rows == 0xffff &&
          reinterpret_cast<std::uintptr_t>(static_cast<float*>(args.y) + at) % 64 == 0) {
        _mm512_stream_ps(static_cast<float*>(args.y) + at, y);
      } else {
        _mm512_mask_storeu_ps(static_cast<float*>(args.y) + at, rows, y);
      }
      break;
    case DataType::bfloat16:
      _mm256_mask_storeu_epi16(static_cast<std::uint16_t*>(args.y) + at, rows, to_bfloat16(y));
      break;
    case DataType::float16:
      _mm256_mask_storeu_epi16(static_cast<std::uint16_t*>(args.y) + at, rows,
                               _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
      break;
  }
}

}  // namespace
}  // namespace trit::avx512_vnni

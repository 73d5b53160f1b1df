// SPDX-License-Identifier: MIT
//
// Eight floats at a time for the AVX2 kernels: loads of every input type, partial loads and stores,
// lane_sum's tree. Only files compiled with this folder's flags include it.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "trit/quantize.h"

namespace trit::avx2 {

/// Elements 0..count-1 of `values`, then zeros, count < 8.
template <typename Element>
struct Partial8 {
  alignas(32) Element elements[8] = {};
  Partial8(const Element* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      elements[i] = values[i];
    }
  }
};

/// Inputs as stored, each with its exact conversion to float. vcvtph2ps keeps denormals whatever MXCSR says.
struct Float32 {
  using Element = float;
  static __m256 load8(const Element* x) { return _mm256_loadu_ps(x); }
};
struct Bfloat16 {
  using Element = std::uint16_t;
  static __m256 load8(const Element* x) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};
struct Float16 {
  using Element = std::uint16_t;
  static __m256 load8(const Element* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
};

template <typename Source>
__m256 load_partial(const typename Source::Element* x, std::int64_t count) {
  return Source::load8(Partial8<typename Source::Element>(x, count).elements);
}

inline __m256 absolute(__m256 v) {
  return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}

/// lane_sum's 256 accumulators, in L1: a vector is used again 32 steps later, when its store has long
/// retired. Terms past the end may be given as +0: every sum here is of terms >= 0 (or NaN), and s + 0 = s
/// for those.
struct Lanes {
  alignas(32) float acc[kLanes] = {};

  float* at(std::int64_t k) { return acc + (k & (kLanes - 1)); }

  /// for s = 128, 64, ..., 1: acc[j] += acc[j + s], j < s
  float tree_sum() {
    for (int step = kLanes / 2; step >= 8; step /= 2) {
      for (int j = 0; j < step; j += 8) {
        _mm256_store_ps(acc + j, _mm256_add_ps(_mm256_load_ps(acc + j), _mm256_load_ps(acc + j + step)));
      }
    }
    const __m128 four = _mm_add_ps(_mm_load_ps(acc), _mm_load_ps(acc + 4));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

}  // namespace trit::avx2

// SPDX-License-Identifier: MIT
#include <immintrin.h>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/generic/float_panels.h"

namespace trit::avx512_vnni {
namespace {

struct Vectors {
  using Floats = __m512;
  using Codes = std::uint32_t;
  static constexpr std::int64_t kLanes = 16;
  static constexpr std::int64_t kRows = 12;  // 24 sums and 2 vectors of B: 128 tokens are 10 x 12 + 8

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats load(const float* from) { return _mm512_loadu_ps(from); }
  static Floats broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static void store(float* to, Floats value) { _mm512_storeu_ps(to, value); }
  static void stream(float* to, Floats value) { _mm512_stream_ps(to, value); }
  static void fence() { _mm_sfence(); }
  static Floats weights(Codes codes) {
    const __m512i to_top = _mm512_setr_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i top = _mm512_sllv_epi32(_mm512_set1_epi32(static_cast<int>(codes)), to_top);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 30));
  }
  static Floats floats(const std::int8_t* integers) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(integers))));
  }
};

}  // namespace

constinit const FloatProductKernel kFloatProduct = float_panels::kernel<Vectors>(std::int64_t{512} << 10);

}  // namespace trit::avx512_vnni

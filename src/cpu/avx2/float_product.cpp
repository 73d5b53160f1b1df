// SPDX-License-Identifier: MIT
#include <immintrin.h>

#include "cpu/avx2/avx2.h"
#include "cpu/generic/float_panels.h"

namespace trit::avx2 {
namespace {

struct Vectors {
  using Floats = __m256;
  using Codes = std::uint16_t;
  static constexpr std::int64_t kLanes = 8;
  static constexpr std::int64_t kRows = 6;  // 12 sums, 2 vectors of B and a broadcast: 15 registers of 16

  static Floats zero() { return _mm256_setzero_ps(); }
  static Floats load(const float* from) { return _mm256_loadu_ps(from); }
  static Floats broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static void store(float* to, Floats value) { _mm256_storeu_ps(to, value); }
  static void stream(float* to, Floats value) { _mm256_stream_ps(to, value); }
  static void fence() { _mm_sfence(); }
  static Floats weights(Codes codes) {
    // Field i to the top two bits of lane i, then down with its sign.
    const __m256i to_top = _mm256_setr_epi32(30, 28, 26, 24, 22, 20, 18, 16);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(codes), to_top), 30));
  }
  static Floats floats(const std::int8_t* integers) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(integers))));
  }
};

}  // namespace

constinit const FloatProductKernel kFloatProduct = float_panels::kernel<Vectors>(std::int64_t{256} << 10);

}  // namespace trit::avx2

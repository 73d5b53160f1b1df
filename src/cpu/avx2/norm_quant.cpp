// SPDX-License-Identifier: MIT
//
// norm_quant_row of quantize.h, bit for bit: one pass for the sum of squares and the largest |x * g|, which
// reads the row from memory, and one for the codes, which finds it in L1 or L2.
#include <immintrin.h>

#include <cstring>

#include "cpu/avx2/avx2.h"
#include "cpu/avx2/lanes.h"

namespace trit::avx2 {
namespace {

struct Statistics {
  float square_sum;
  float largest;
};

// max by the unsigned bits of |v|, as the contract has it: a NaN is above every number and is never lost.
float largest_of(__m256i bits) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

template <typename Source, bool kNorm, bool kWeight>
struct Row {
  const typename Source::Element* x;
  const float* norm_weight;
  std::int64_t in_features;

  __m256 load(std::int64_t k, std::int64_t count) const {
    return count == 8 ? Source::load8(x + k) : load_partial<Source>(x + k, count);
  }
  __m256 weighted(__m256 v, std::int64_t k, std::int64_t count) const {
    if constexpr (kWeight) {
      return _mm256_mul_ps(
          v, count == 8 ? _mm256_loadu_ps(norm_weight + k) : load_partial<Float32>(norm_weight + k, count));
    }
    return v;
  }

  Statistics statistics() const {
    Lanes lanes;
    __m256i largest = _mm256_setzero_si256();
    const auto step = [&](std::int64_t k, std::int64_t count) {
      const __m256 v = load(k, count);
      if constexpr (kNorm) {
        _mm256_store_ps(lanes.at(k), _mm256_fmadd_ps(v, v, _mm256_load_ps(lanes.at(k))));
      }
      largest = _mm256_max_epu32(largest, _mm256_castps_si256(absolute(weighted(v, k, count))));
    };
    std::int64_t k = 0;
    for (; k + 8 <= in_features; k += 8) {
      step(k, 8);
    }
    if (k < in_features) {
      step(k, in_features - k);
    }
    return {kNorm ? lanes.tree_sum() : 0.0F, largest_of(largest)};
  }

  // clamp before the conversion: rint and an integer clamp commute, and vcvtps2dq needs values within int32.
  __m256i quantise(std::int64_t k, std::int64_t count, __m256 factor) const {
    const __m256 scaled = _mm256_mul_ps(weighted(load(k, count), k, count), factor);
    const __m256 clamped = _mm256_max_ps(_mm256_min_ps(scaled, _mm256_set1_ps(127)), _mm256_set1_ps(-128));
    return _mm256_cvtps_epi32(clamped);
  }

  // Writes padded_in_features(in_features) codes, returns their sum.
  std::int32_t codes(float factor_value, std::int8_t* q) const {
    const __m256 factor = _mm256_set1_ps(factor_value);
    __m256i sum = _mm256_setzero_si256();
    std::int64_t k = 0;
    for (; k + 32 <= in_features; k += 32) {
      const __m256i a = quantise(k, 8, factor);
      const __m256i b = quantise(k + 8, 8, factor);
      const __m256i c = quantise(k + 16, 8, factor);
      const __m256i d = quantise(k + 24, 8, factor);
      sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
      const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
      // The packs work in 128-bit halves: a b c d came out as a0 b0 c0 d0 a1 b1 c1 d1 in groups of 4.
      const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k), _mm256_permutevar8x32_epi32(bytes, order));
    }
    for (; k < in_features; k += 8) {
      const std::int64_t count = in_features - k < 8 ? in_features - k : 8;
      const __m256i a = quantise(k, count, factor);  // lanes past the end are zero, so the padding is
      sum = _mm256_add_epi32(sum, a);
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
      alignas(16) std::int8_t bytes[16];
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm_packs_epi16(words, words));
      std::memcpy(q + k, bytes, count == 8 ? 8 : static_cast<std::size_t>((count + 3) / 4 * 4));
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
  }
};

// Builtins where the standard library has inline functions: an unoptimised build would emit those here, with
// AVX encodings, for the linker to choose from for the whole library.
bool finite(float v) { return (__builtin_bit_cast(std::uint32_t, v) & 0x7fffffffU) < 0x7f800000U; }

template <typename Source, bool kNorm, bool kWeight>
void run(const NormQuantRow& args) {
  const Row<Source, kNorm, kWeight> row{static_cast<const typename Source::Element*>(args.x),
                                        args.norm_weight, args.in_features};
  const Statistics found = row.statistics();
  float mean_square = kNorm ? found.square_sum / static_cast<float>(args.in_features) : 0.0F;
  float rstd = kNorm ? 1.0F / __builtin_sqrtf(mean_square + args.eps) : 1.0F;
  if (kNorm && args.row_rstd != nullptr) {
    rstd = *args.row_rstd;
    mean_square = rstd == 0 ? __builtin_inff() : 0.0F;
  }
  const float product = kNorm ? rstd * found.largest : found.largest;
  *args.rstd = rstd;
  if (!finite(mean_square) || !finite(found.largest) || !finite(product)) {
    std::memset(args.q, 0, static_cast<std::size_t>((args.in_features + 3) / 4 * 4));
    *args.scale = __builtin_nanf("");
    *args.q_sum = 0;
    return;
  }
  const float absmax = product < 1e-5F ? 1e-5F : product;
  const float factor = kNorm ? rstd * (127.0F / absmax) : 127.0F / absmax;
  *args.scale = absmax / 127.0F;
  *args.q_sum = row.codes(factor, args.q);
}

template <typename Source>
void run_source(const NormQuantRow& args) {
  if (args.norm == Norm::none) {
    run<Source, false, false>(args);
  } else if (args.norm_weight == nullptr) {
    run<Source, true, false>(args);
  } else {
    run<Source, true, true>(args);
  }
}

}  // namespace

void norm_quant_row(const NormQuantRow& row) {
  switch (row.x_type) {
    case DataType::float32:
      return run_source<Float32>(row);
    case DataType::bfloat16:
      return run_source<Bfloat16>(row);
    case DataType::float16:
      return run_source<Float16>(row);
  }
}

}  // namespace trit::avx2

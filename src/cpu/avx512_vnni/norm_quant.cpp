// SPDX-License-Identifier: MIT
//
// RMSNorm + absmax int8 of one row, AVX-512 (docs/design/cpu-rows.md). Two passes over the
// row: the first reads it from memory, the second from cache.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/lanes.h"

namespace trit::avx512_vnni {
namespace {

struct Float32 {
  using Element = float;
  [[gnu::always_inline]] static __m512 load(const Element* x) { return _mm512_loadu_ps(x); }
  [[gnu::always_inline]] static __m512 load(const Element* x, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, x);
  }
};

struct Bfloat16 {
  using Element = std::uint16_t;
  [[gnu::always_inline]] static __m512 widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  [[gnu::always_inline]] static __m512 load(const Element* x) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
  [[gnu::always_inline]] static __m512 load(const Element* x, __mmask16 mask) {
    return widen(_mm256_maskz_loadu_epi16(mask, x));
  }
};

struct Float16 {
  using Element = std::uint16_t;
  [[gnu::always_inline]] static __m512 load(const Element* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
  [[gnu::always_inline]] static __m512 load(const Element* x, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x));
  }
};

/// What comes before the absmax.
enum class Before { nothing, rms, rms_weighted };

[[gnu::always_inline]] inline float from_bits(std::uint32_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
}

[[gnu::always_inline]] inline bool is_finite(float value) {
  const auto bits = static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(value))));
  return (bits & 0x7fffffffU) < 0x7f800000U;
}

/// x * g of 16 inputs.
template <typename Type, Before kBefore, bool kMasked>
[[gnu::always_inline]] inline __m512 weighted(__m512 x, const float* norm_weight, std::int64_t at,
                                              __mmask16 mask) {
  if constexpr (kBefore != Before::rms_weighted) {
    return x;
  } else if constexpr (kMasked) {
    return _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, norm_weight + at));
  } else {
    return _mm512_mul_ps(x, _mm512_loadu_ps(norm_weight + at));
  }
}

/// Sum of squares and the bits of max|x * g|.
struct Statistics {
  float sum_of_squares;
  std::uint32_t largest;
};

template <typename Type, Before kBefore>
[[gnu::always_inline]] inline Statistics statistics(const typename Type::Element* x, const float* norm_weight,
                                                    std::int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512 acc[16] = {};
  __m512i largest = _mm512_setzero_si512();
  for_each_lane_register(
      n, [&](auto masked, auto index, std::int64_t at, __mmask16 mask) __attribute__((always_inline)) {
        __m512 v;
        if constexpr (masked()) {
          v = Type::load(x + at, mask);
        } else {
          v = Type::load(x + at);
        }
        if constexpr (kBefore != Before::nothing) {
          acc[index()] = _mm512_fmadd_ps(v, v, acc[index()]);
        }
        const __m512 xg = weighted<Type, kBefore, masked()>(v, norm_weight, at, mask);
        largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(xg), magnitude));
      });
  return {kBefore == Before::nothing ? 0.0F : tree_sum(acc), _mm512_reduce_max_epu32(largest)};
}

/// Fetches 64 inputs of the row behind this one into L2. The second pass needs no memory: what comes
/// meanwhile is what the next row's first pass need not wait for. Where no row follows it is 16 KiB read in
/// vain at K = 4096.
template <typename Element>
[[gnu::always_inline]] inline void prefetch_next_row(const Element* x, std::int64_t n, std::int64_t at) {
  const auto* next = reinterpret_cast<const char*>(x + n + at);
  for (std::size_t byte = 0; byte < 64 * sizeof(Element); byte += 64) {
    _mm_prefetch(next + byte, _MM_HINT_T1);
  }
}

/// q = rint(xg * c) and its sum. `non_temporal`: q is on a cache line, and its whole lines go past the
/// caches.
///
/// No clamp is needed: c is 127 / max|xg| but for three roundings of relative error 2^-24 (the terms stay in
/// the normal range: eps > 0 and a finite r * m bound r, and 1e-5 <= a), or smaller where a = 1e-5, so that
/// |xg * c| < 127.5 for every input of a row that is not bad.
template <typename Type, Before kBefore>
[[gnu::always_inline]] inline std::int32_t quantize(const typename Type::Element* x, const float* norm_weight,
                                                    std::int64_t n, float factor, bool non_temporal,
                                                    std::int8_t* q) {
  const __m512 c = _mm512_set1_ps(factor);
  const __m512i ones = _mm512_set1_epi8(1);
  // The packs take 128-bit lanes in turn: dword 4 i + v of the result is lane i of register v.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i sum = _mm512_setzero_si512();
  const auto pack = [&](__m512i t0, __m512i t1, __m512i t2, __m512i t3) __attribute__((always_inline)) {
    const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(t0, t1), _mm512_packs_epi32(t2, t3));
    sum = _mm512_dpbusd_epi32(sum, ones, bytes);
    return _mm512_permutexvar_epi32(order, bytes);
  };
  std::int64_t at = n / 64 * 64;
  if (at < n) {
    const auto codes = [&](std::int64_t first) __attribute__((always_inline)) {
      const __mmask16 mask = first_lanes(n - first);
      const __m512 xg = weighted<Type, kBefore, true>(Type::load(x + first, mask), norm_weight, first, mask);
      return _mm512_cvtps_epi32(_mm512_mul_ps(xg, c));
    };
    const std::int64_t left = (n - at + 3) / 4 * 4;  // with the padding: masked inputs are 0
    const __mmask64 bytes = left == 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    _mm512_mask_storeu_epi8(q + at, bytes, pack(codes(at), codes(at + 16), codes(at + 32), codes(at + 48)));
  }
  // From the end to the start: the end of x and g is what the first pass has left in L1, and their start is
  // what the next row's first pass finds there. (K = 4096 with weights: 36 KB in a cache of 32.)
  for (at -= 64; at >= 0; at -= 64) {
    prefetch_next_row(x, n, n - 64 - at);
    const auto codes = [&](std::int64_t first) __attribute__((always_inline)) {
      const __m512 xg = weighted<Type, kBefore, false>(Type::load(x + first), norm_weight, first, 0xffff);
      return _mm512_cvtps_epi32(_mm512_mul_ps(xg, c));
    };
    const __m512i bytes = pack(codes(at), codes(at + 16), codes(at + 32), codes(at + 48));
    if (non_temporal) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(q + at), bytes);
    } else {
      _mm512_storeu_si512(q + at, bytes);
    }
  }
  if (non_temporal) {
    _mm_sfence();  // before anything that tells another thread that q is there
  }
  return _mm512_reduce_add_epi32(sum);
}

template <typename Type, Before kBefore>
void norm_quant(const NormQuantRow& args) {
  const auto* x = static_cast<const typename Type::Element*>(args.x);
  const std::int64_t n = args.in_features;
  const Statistics row = statistics<Type, kBefore>(x, args.norm_weight, n);
  const float largest = from_bits(row.largest);
  float mean_square = 0.0F;
  float rstd = 1.0F;
  float product = largest;
  if constexpr (kBefore != Before::nothing) {
    mean_square = row.sum_of_squares / static_cast<float>(n);
    rstd = 1.0F / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean_square + args.eps)));
    if (args.row_rstd != nullptr) {
      rstd = *args.row_rstd;
      mean_square = rstd == 0 ? from_bits(0x7f800000U) : 0.0F;
    }
    product = rstd * largest;
  }
  *args.rstd = rstd;
  if (!is_finite(mean_square) || !is_finite(largest) || !is_finite(product)) {
    std::memset(args.q, 0, static_cast<std::size_t>((n + 3) / 4 * 4));
    *args.scale = from_bits(0x7fc00000U);
    *args.q_sum = 0;
    return;
  }
  const float absmax = product < 1e-5F ? 1e-5F : product;
  const float factor = kBefore == Before::nothing ? 127.0F / absmax : rstd * (127.0F / absmax);
  *args.scale = absmax / 127.0F;
  *args.q_sum = quantize<Type, kBefore>(
      x, args.norm_weight, n, factor, args.non_temporal && reinterpret_cast<std::uintptr_t>(args.q) % 64 == 0,
      args.q);
}

template <typename Type>
void norm_quant(const NormQuantRow& args) {
  if (args.norm == Norm::none) {
    norm_quant<Type, Before::nothing>(args);
  } else if (args.norm_weight == nullptr) {
    norm_quant<Type, Before::rms>(args);
  } else {
    norm_quant<Type, Before::rms_weighted>(args);
  }
}

}  // namespace

void norm_quant_row(const NormQuantRow& args) {
  switch (args.x_type) {
    case DataType::float32:
      return norm_quant<Float32>(args);
    case DataType::bfloat16:
      return norm_quant<Bfloat16>(args);
    case DataType::float16:
      return norm_quant<Float16>(args);
  }
}

}  // namespace trit::avx512_vnni

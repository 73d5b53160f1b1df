// SPDX-License-Identifier: MIT
//
// The product tile and the epilogue, AVX-512 VNNI (docs/kernels.md, "Product").
//
// A panel is 64 output rows; its line g (64 bytes) holds inputs 4g..4g+3 of all of them: byte i has in its
// four 2-bit fields the codes t + 1 of rows l, l+16, l+32, l+48 (l = i / 4) at input 4g + i % 4. One AND per
// field j gives 64 unsigned bytes code * 4^j, the first operand of vpdpbusd; the other is 4 bytes of q,
// broadcast. So an accumulator lane is one output row, there is no horizontal sum, no shift in the loop, and
// one layout serves a single token and many. At the end field j is shifted right by 2j (exact: every term is
// a multiple of 4^j) and the sum of q takes the 1 out of the codes.
//
// The loops below live in registers alone. gcc 12 spills accumulators of such loops when they are written
// with intrinsics, so the multiplying step is an asm block; scripts/check_spills.py looks at the result.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/lanes.h"

namespace trit::avx512_vnni {
namespace {

// Enough to cover the latency of memory at the speed of this loop, and worth 15 to 25 % of the bandwidth
// against 2 KB. A prefetch past the last panel is harmless.
constexpr std::int64_t kPanelPrefetchBytes = 8192;

/// One register per 2-bit field of a line.
struct Fields {
  __m512i f0, f1, f2, f3;
};

/// The four ANDs of a line.
struct MasksInRegisters {
  __m512i m0, m1, m2, m3;
  MasksInRegisters()
      : m0(_mm512_set1_epi8(0x03)),
        m1(_mm512_set1_epi8(0x0c)),
        m2(_mm512_set1_epi8(0x30)),
        m3(_mm512_set1_epi8(static_cast<char>(0xc0))) {
    // Unseen by the compiler, or it turns them back into memory operands.
    asm("" : "+v"(m0), "+v"(m1), "+v"(m2), "+v"(m3));
  }
  [[gnu::always_inline]] Fields unpack(const std::uint8_t* line) const {
    const __m512i codes = _mm512_loadu_si512(line);
    return {_mm512_and_si512(codes, m0), _mm512_and_si512(codes, m1), _mm512_and_si512(codes, m2),
            _mm512_and_si512(codes, m3)};
  }
};

/// The same where accumulators take 24 of the 32 registers: the masks are broadcast from memory. Four more
/// loads in 24 cycles cost nothing.
struct MasksInMemory {
  [[gnu::always_inline]] Fields unpack(const std::uint8_t* line) const {
    static constexpr std::uint32_t kMasks[4] = {0x03030303, 0x0c0c0c0c, 0x30303030, 0xc0c0c0c0};
    const __m512i codes = _mm512_loadu_si512(line);
    __m512i f0, f1, f2, f3;  // not a Fields: gcc 12 keeps a struct's asm outputs in memory as well
    asm("vpandd %[m0]%{1to16%}, %[codes], %[f0]\n\t"
        "vpandd %[m1]%{1to16%}, %[codes], %[f1]\n\t"
        "vpandd %[m2]%{1to16%}, %[codes], %[f2]\n\t"
        "vpandd %[m3]%{1to16%}, %[codes], %[f3]"
        : [f0] "=&v"(f0), [f1] "=&v"(f1), [f2] "=&v"(f2), [f3] "=v"(f3)
        : [codes] "v"(codes), [m0] "m"(kMasks[0]), [m1] "m"(kMasks[1]), [m2] "m"(kMasks[2]),
          [m3] "m"(kMasks[3]));
    return {f0, f1, f2, f3};
  }
};

/// Four bytes of q as an asm memory operand, whatever their declared type.
struct [[gnu::may_alias, gnu::packed]] FourInputs {
  std::int32_t bits;
};

/// acc += fields . q: 64 rows x 4 inputs of one token.
[[gnu::always_inline]] inline void multiply(Fields& acc, const Fields& fields, const std::int8_t* q) {
  __m512i inputs;
  asm("vpbroadcastd %[q], %[inputs]\n\t"
      "vpdpbusd %[inputs], %[f0], %[a0]\n\t"
      "vpdpbusd %[inputs], %[f1], %[a1]\n\t"
      "vpdpbusd %[inputs], %[f2], %[a2]\n\t"
      "vpdpbusd %[inputs], %[f3], %[a3]"
      : [inputs] "=&v"(inputs), [a0] "+v"(acc.f0), [a1] "+v"(acc.f1), [a2] "+v"(acc.f2), [a3] "+v"(acc.f3)
      : [f0] "v"(fields.f0), [f1] "v"(fields.f1), [f2] "v"(fields.f2), [f3] "v"(fields.f3),
        [q] "m"(*reinterpret_cast<const FourInputs*>(q)));
}

[[gnu::always_inline]] inline void add(Fields& acc, const Fields& other) {
  acc.f0 = _mm512_add_epi32(acc.f0, other.f0);
  acc.f1 = _mm512_add_epi32(acc.f1, other.f1);
  acc.f2 = _mm512_add_epi32(acc.f2, other.f2);
  acc.f3 = _mm512_add_epi32(acc.f3, other.f3);
}

[[gnu::always_inline]] inline void finish(const Fields& acc, std::int32_t q_sum, std::int32_t* out) {
  const __m512i sum = _mm512_set1_epi32(q_sum);
  _mm512_storeu_si512(out, _mm512_sub_epi32(acc.f0, sum));
  _mm512_storeu_si512(out + 16, _mm512_sub_epi32(_mm512_srai_epi32(acc.f1, 2), sum));
  _mm512_storeu_si512(out + 32, _mm512_sub_epi32(_mm512_srai_epi32(acc.f2, 4), sum));
  _mm512_storeu_si512(out + 48, _mm512_sub_epi32(_mm512_srai_epi32(acc.f3, 6), sum));
}

/// The tile of kTokens tokens, kSteps lines at a time into accumulators of their own: vpdpbusd has a latency
/// of 4 to 5 cycles, and kTokens * kSteps * 4 chains hide it.
///
/// Indices are unrolled by packs, not loops, so that the accumulators are registers from the first pass of
/// either compiler on.
template <typename Masks, std::size_t kSteps, std::size_t... kToken>
[[gnu::always_inline]] inline void tile(const ProductTile& args, std::index_sequence<kToken...> /*tokens*/) {
  constexpr std::size_t kTokens = sizeof...(kToken);
  const Masks masks;
  Fields acc[kSteps * kTokens] = {};
  const std::uint8_t* line = args.panel;
  const std::int8_t* const q[kTokens] = {args.q + static_cast<std::int64_t>(kToken) * args.q_stride...};
  std::int64_t at = 0;
  const auto step = [&]<std::size_t kStep>(Constant<kStep>) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(line + kPanelPrefetchBytes + 64 * kStep), _MM_HINT_T0);
    const Fields fields = masks.unpack(line + 64 * kStep);
    (multiply(acc[kStep * kTokens + kToken], fields, q[kToken] + at + 4 * kStep), ...);
  };
  const auto steps = [&]<std::size_t... kStep>(std::index_sequence<kStep...>) __attribute__((always_inline)) {
    (step(Constant<kStep>{}), ...);
    line += 64 * sizeof...(kStep);
    at += 4 * static_cast<std::int64_t>(sizeof...(kStep));
  };
  while (at + 4 * static_cast<std::int64_t>(kSteps) <= args.k) {
    steps(std::make_index_sequence<kSteps>{});
  }
  if constexpr (kSteps > 1) {
    while (at < args.k) {
      steps(std::make_index_sequence<1>{});
    }
    const auto fold = [&]<std::size_t... kOther>(std::index_sequence<kOther...>)
        __attribute__((always_inline)) {
      (add(acc[kOther % kTokens], acc[kOther + kTokens]), ...);
    };
    fold(std::make_index_sequence<(kSteps - 1) * kTokens>{});
  }
  (finish(acc[kToken], args.q_sum[kToken], args.acc + 64 * kToken), ...);
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

}  // namespace

void product_tile(const ProductTile& args) {
  switch (args.tokens) {
    case 1:
      return tile<MasksInRegisters, 4>(args, std::make_index_sequence<1>{});
    case 2:
      return tile<MasksInRegisters, 2>(args, std::make_index_sequence<2>{});
    case 3:
      return tile<MasksInRegisters, 1>(args, std::make_index_sequence<3>{});
    case 4:
      return tile<MasksInRegisters, 1>(args, std::make_index_sequence<4>{});
    case 5:
      return tile<MasksInRegisters, 1>(args, std::make_index_sequence<5>{});
    default:
      return tile<MasksInMemory, 1>(args, std::make_index_sequence<6>{});
  }
}

void epilogue_row(const EpilogueRow& args) {
  const __m512 row_scale = _mm512_set1_ps(args.row_scale);
  for (std::int64_t at = 0; at < args.rows; at += 16) {
    const __mmask16 rows = first_lanes(args.rows - at);
    const __m512 scale =
        args.scale_per_row ? _mm512_maskz_loadu_ps(rows, args.scale + at) : _mm512_set1_ps(*args.scale);
    const __m512 acc = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(rows, args.acc + at));
    __m512 y = _mm512_mul_ps(_mm512_mul_ps(acc, row_scale), scale);
    if (args.bias != nullptr) {
      y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(rows, args.bias + at));
    }
    switch (args.y_type) {
      case DataType::float32:
        _mm512_mask_storeu_ps(static_cast<float*>(args.y) + at, rows, y);
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
}

}  // namespace trit::avx512_vnni

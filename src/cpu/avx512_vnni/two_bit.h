// SPDX-License-Identifier: MIT
//
// The arithmetic of 2-bit panels, AVX-512 VNNI (docs/design/cpu-avx512-vnni.md).
//
// A panel is 64 output rows; its line g (64 bytes) holds inputs 4g..4g+3 of all of them: byte i has in its
// four 2-bit fields the codes t + 1 of rows l, l+16, l+32, l+48 (l = i / 4) at input 4g + i % 4. One AND per
// field j < 3 gives 64 unsigned bytes code * 4^j, the first operand of vpdpbusd; the other is 4 bytes of q,
// broadcast. So an accumulator lane is one output row, there is no horizontal sum, no shift in the loop, and
// one layout serves a single token and many.
//
// The last field needs no AND: the line as it is, all four fields, goes into the fourth accumulator, and what
// the other three hold is taken out of that at the end. Sums are modulo 2^32, so it may overflow on the way;
// the difference, 64 times a sum of codes, is exact where it fits. Then field j is shifted right by 2j (every
// term is a multiple of 4^j) and the sum of q takes the 1 out of the codes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/avx512_vnni/lanes.h"
#include "cpu/avx512_vnni/tile.h"

namespace trit::avx512_vnni {
namespace {

/// Fields 0 to 2 of a line, and the line.
struct Fields {
  __m512i f0, f1, f2, line;
};

/// One token from memory, two Zen 4 cores, microseconds with prefetches into L2 and into L1: 4096 x 4096 192
/// to 203 and 152 to 164, 14336 x 4096 698 to 778 and 614 to 665. With two tokens, and for 1.6-bit panels
/// with one, L1 takes 6 to 8 % longer there; on Sapphire Rapids it does so for one token as well. With
/// groups of 128, of the speed without: 0.84 with prefetches into L2, 0.86 to 0.90 into L1, two lines at a time.
constexpr PrefetchTo kOneTokenPrefetchOnAmd = PrefetchTo::l1;

/// The three ANDs of a line.
template <PrefetchTo kTo = PrefetchTo::l2>
struct MasksInRegisters {
  __m512i m0, m1, m2;
  MasksInRegisters() : m0(_mm512_set1_epi8(0x03)), m1(_mm512_set1_epi8(0x0c)), m2(_mm512_set1_epi8(0x30)) {
    // Unseen by the compiler, or it turns them back into memory operands.
    asm("" : "+v"(m0), "+v"(m1), "+v"(m2));
  }
  [[gnu::always_inline]] Fields decode(const std::uint8_t* line, const std::uint8_t* prefetched) const {
    const __m512i codes = load_line<kTo>(line, prefetched);
    return {_mm512_and_si512(codes, m0), _mm512_and_si512(codes, m1), _mm512_and_si512(codes, m2), codes};
  }
};

/// The same where accumulators take 24 of the 32 registers. Three more loads in 24 cycles cost nothing.
struct MasksInMemory {
  [[gnu::always_inline]] Fields decode(const std::uint8_t* line, const std::uint8_t* prefetched) const {
    const __m512i codes = load_line(line, prefetched);
    __m512i f0, f1, f2;  // not a Fields: gcc 12 keeps a struct's asm outputs in memory as well
    asm("vpandd %[m0]%{1to16%}, %[codes], %[f0]\n\t"
        "vpandd %[m1]%{1to16%}, %[codes], %[f1]\n\t"
        "vpandd %[m2]%{1to16%}, %[codes], %[f2]"
        : [f0] "=&v"(f0), [f1] "=&v"(f1), [f2] "=&v"(f2)
        : [codes] "v"(codes), [m0] "m"(kFieldMasks[0]), [m1] "m"(kFieldMasks[1]), [m2] "m"(kFieldMasks[2]));
    return {f0, f1, f2, codes};
  }
};

/// A kernel of tile().
template <typename Masks>
struct TwoBit : Masks {
  static constexpr std::size_t kPanelRows = 64;
  struct Sums {
    __m512i s0, s1, s2, all;
  };

  /// sums += fields . q: 64 rows x 4 inputs of one token.
  [[gnu::always_inline]] static void multiply(Sums& sums, const Fields& fields, const std::int8_t* q) {
    __m512i inputs;
    asm("vpbroadcastd %[q], %[inputs]\n\t"
        "vpdpbusd %[inputs], %[f0], %[s0]\n\t"
        "vpdpbusd %[inputs], %[f1], %[s1]\n\t"
        "vpdpbusd %[inputs], %[f2], %[s2]\n\t"
        "vpdpbusd %[inputs], %[line], %[all]"
        : [inputs] "=&v"(inputs), [s0] "+v"(sums.s0), [s1] "+v"(sums.s1), [s2] "+v"(sums.s2),
          [all] "+v"(sums.all)
        : [f0] "v"(fields.f0), [f1] "v"(fields.f1), [f2] "v"(fields.f2), [line] "v"(fields.line),
          [q] "m"(*reinterpret_cast<const FourInputs*>(q)));
  }

  [[gnu::always_inline]] static void add(Sums& sums, const Sums& other) {
    sums.s0 = _mm512_add_epi32(sums.s0, other.s0);
    sums.s1 = _mm512_add_epi32(sums.s1, other.s1);
    sums.s2 = _mm512_add_epi32(sums.s2, other.s2);
    sums.all = _mm512_add_epi32(sums.all, other.all);
  }

  /// What takes the 1 out of the codes t + 1, of a group's sums before they begin: minus the sum of q, times
  /// what each of the four sums holds the codes times.
  static constexpr std::int64_t kOffsets = 4;
  [[gnu::always_inline]] static void begin(Sums& sums, const std::int32_t* offsets) {
    sums.s0 = _mm512_set1_epi32(offsets[0]);
    sums.s1 = _mm512_set1_epi32(offsets[1]);
    sums.s2 = _mm512_set1_epi32(offsets[2]);
    sums.all = _mm512_set1_epi32(offsets[3]);
  }
  /// The end of such a group: for each row to[row] = fma(its sum, w, to[row]), where `to` begins kOffset bytes
  /// behind `sums_of_tile`, and `scales` are w over 1, 4, 16 and 64, with kTokenScale to be multiplied by
  /// *token_scale.
  ///
  /// One asm block: gcc 12 keeps the sums of all tokens on the stack otherwise, those in memory twice, and an
  /// address for each register of them.
  template <bool kTokenScale, std::size_t kOffset>
  [[gnu::always_inline]] static void add_group(Sums& sums, const __m512 (&scales)[4],
                                               const float* token_scale, float* sums_of_tile) {
    if constexpr (kTokenScale) {
      __m512 w;
      asm volatile(
          "vpsubd %[s0], %[all], %[all]\n\t"
          "vmulps (%[token])%{1to16%}, %[w0], %[w]\n\t"
          "vcvtdq2ps %[s0], %[s0]\n\t"
          "vpsubd %[s1], %[all], %[all]\n\t"
          "vfmadd213ps %c[at](%[to]), %[w], %[s0]\n\t"
          "vmulps (%[token])%{1to16%}, %[w1], %[w]\n\t"
          "vmovups %[s0], %c[at](%[to])\n\t"
          "vcvtdq2ps %[s1], %[s1]\n\t"
          "vpsubd %[s2], %[all], %[all]\n\t"
          "vfmadd213ps %c[at]+64(%[to]), %[w], %[s1]\n\t"
          "vmulps (%[token])%{1to16%}, %[w2], %[w]\n\t"
          "vmovups %[s1], %c[at]+64(%[to])\n\t"
          "vcvtdq2ps %[s2], %[s2]\n\t"
          "vcvtdq2ps %[all], %[all]\n\t"
          "vfmadd213ps %c[at]+128(%[to]), %[w], %[s2]\n\t"
          "vmulps (%[token])%{1to16%}, %[w3], %[w]\n\t"
          "vmovups %[s2], %c[at]+128(%[to])\n\t"
          "vfmadd213ps %c[at]+192(%[to]), %[w], %[all]\n\t"
          "vmovups %[all], %c[at]+192(%[to])"
          : [s0] "+v"(sums.s0), [s1] "+v"(sums.s1), [s2] "+v"(sums.s2), [all] "+v"(sums.all), [w] "=&v"(w)
          : [w0] "v"(scales[0]), [w1] "v"(scales[1]), [w2] "v"(scales[2]), [w3] "v"(scales[3]),
            [token] "r"(token_scale), [to] "r"(sums_of_tile), [at] "i"(kOffset)
          : "memory");
    } else {
      asm volatile(
          "vpsubd %[s0], %[all], %[all]\n\t"
          "vcvtdq2ps %[s0], %[s0]\n\t"
          "vpsubd %[s1], %[all], %[all]\n\t"
          "vcvtdq2ps %[s1], %[s1]\n\t"
          "vpsubd %[s2], %[all], %[all]\n\t"
          "vcvtdq2ps %[s2], %[s2]\n\t"
          "vfmadd213ps %c[at](%[to]), %[w0], %[s0]\n\t"
          "vmovups %[s0], %c[at](%[to])\n\t"
          "vfmadd213ps %c[at]+64(%[to]), %[w1], %[s1]\n\t"
          "vmovups %[s1], %c[at]+64(%[to])\n\t"
          "vcvtdq2ps %[all], %[all]\n\t"
          "vfmadd213ps %c[at]+128(%[to]), %[w2], %[s2]\n\t"
          "vmovups %[s2], %c[at]+128(%[to])\n\t"
          "vfmadd213ps %c[at]+192(%[to]), %[w3], %[all]\n\t"
          "vmovups %[all], %c[at]+192(%[to])"
          : [s0] "+v"(sums.s0), [s1] "+v"(sums.s1), [s2] "+v"(sums.s2), [all] "+v"(sums.all)
          : [w0] "v"(scales[0]), [w1] "v"(scales[1]), [w2] "v"(scales[2]), [w3] "v"(scales[3]),
            [to] "r"(sums_of_tile), [at] "i"(kOffset)
          : "memory");
    }
  }

  [[gnu::always_inline]] static void finish(const Sums& sums, std::int32_t q_sum, std::int32_t* out) {
    const __m512i offset = _mm512_set1_epi32(q_sum);
    const __m512i s3 = _mm512_sub_epi32(
        sums.all, _mm512_add_epi32(sums.s0, _mm512_add_epi32(sums.s1, sums.s2)));  // 64 * codes
    _mm512_storeu_si512(out, _mm512_sub_epi32(sums.s0, offset));
    _mm512_storeu_si512(out + 16, _mm512_sub_epi32(_mm512_srai_epi32(sums.s1, 2), offset));
    _mm512_storeu_si512(out + 32, _mm512_sub_epi32(_mm512_srai_epi32(sums.s2, 4), offset));
    _mm512_storeu_si512(out + 48, _mm512_sub_epi32(_mm512_srai_epi32(s3, 6), offset));
  }
};

}  // namespace
}  // namespace trit::avx512_vnni

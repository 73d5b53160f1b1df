// SPDX-License-Identifier: MIT
//
// The product tile of base-3 panels, AVX-512 VNNI and VBMI (docs/design/cpu-base3.md).
//
// A panel is 80 output rows; its line g (64 bytes) holds inputs 4g..4g+3 of all of them: byte i is
//   b = c0 + 3 c1 + 9 c2 + 27 c3 + 81 c4,   c = t + 1 of rows l, l+16, l+32, l+48, l+64 at input 4g + i % 4
// (l = i / 4). What vpdpbusd multiplies need not be the codes themselves: five independent sums of them do.
// Three are fields of a lookup of b mod 81, one is that lookup's byte as it is (as in product.cpp), and the
// fifth is b. The end solves for the five rows; sums are modulo 2^32, where division by 81 is a product.
#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/lanes.h"
#include "cpu/avx512_vnni/tile.h"

namespace trit::avx512_vnni {
namespace {

/// Digits of r < 81 in 2-bit fields, in the two registers of vpermi2b.
constexpr std::array<std::uint8_t, 128> fields_of_digits() {
  std::array<std::uint8_t, 128> fields{};
  for (unsigned r = 0; r < 81; ++r) {
    fields[r] = static_cast<std::uint8_t>(r % 3 | r / 3 % 3 << 2U | r / 9 % 3 << 4U | r / 27 << 6U);
  }
  return fields;
}
alignas(64) constexpr std::array<std::uint8_t, 128> kFields = fields_of_digits();

/// 1 / 81 modulo 2^32.
constexpr std::uint32_t kInverse = 2014922929U;
static_assert(81U * kInverse == 1U);

struct Fields {
  __m512i f0, f1, f2, looked_up, line;
};

/// A kernel of tile().
struct BaseThree {
  static constexpr std::size_t kPanelRows = 80;
  struct Sums {
    __m512i s0, s1, s2, all, line;
  };
  __m512i eighty_one, low, high;

  BaseThree()
      : eighty_one(_mm512_set1_epi8(81)),
        low(_mm512_load_si512(kFields.data())),
        high(_mm512_load_si512(kFields.data() + 64)) {
    // Unseen by the compiler, or it turns them into memory operands.
    asm("" : "+v"(eighty_one), "+v"(low), "+v"(high));
  }

  /// b < 243 to b mod 81, twice as the smaller of b and b - 81 (which wraps where b < 81).
  [[gnu::always_inline]] Fields decode(const std::uint8_t* from, const std::uint8_t* prefetched) const {
    const __m512i line = load_line(from, prefetched);
    __m512i r, f0, f1, f2;
    asm("vpsubb %[n], %[line], %[r]\n\t"
        "vpminub %[r], %[line], %[r]\n\t"
        "vpsubb %[n], %[r], %[f0]\n\t"
        "vpminub %[f0], %[r], %[r]\n\t"
        "vpermi2b %[high], %[low], %[r]\n\t"
        "vpandd %[m0]%{1to16%}, %[r], %[f0]\n\t"
        "vpandd %[m1]%{1to16%}, %[r], %[f1]\n\t"
        "vpandd %[m2]%{1to16%}, %[r], %[f2]"
        : [r] "=&v"(r), [f0] "=&v"(f0), [f1] "=&v"(f1), [f2] "=&v"(f2)
        : [line] "v"(line), [n] "v"(eighty_one), [low] "v"(low), [high] "v"(high), [m0] "m"(kFieldMasks[0]),
          [m1] "m"(kFieldMasks[1]), [m2] "m"(kFieldMasks[2]));
    return {f0, f1, f2, r, line};
  }

  /// sums += fields . q: 80 rows x 4 inputs of one token.
  [[gnu::always_inline]] static void multiply(Sums& sums, const Fields& fields, const std::int8_t* q) {
    __m512i inputs;
    asm("vpbroadcastd %[q], %[inputs]\n\t"
        "vpdpbusd %[inputs], %[line], %[sl]\n\t"
        "vpdpbusd %[inputs], %[f0], %[s0]\n\t"
        "vpdpbusd %[inputs], %[f1], %[s1]\n\t"
        "vpdpbusd %[inputs], %[f2], %[s2]\n\t"
        "vpdpbusd %[inputs], %[looked_up], %[all]"
        : [inputs] "=&v"(inputs), [s0] "+v"(sums.s0), [s1] "+v"(sums.s1), [s2] "+v"(sums.s2),
          [all] "+v"(sums.all), [sl] "+v"(sums.line)
        : [f0] "v"(fields.f0), [f1] "v"(fields.f1), [f2] "v"(fields.f2), [looked_up] "v"(fields.looked_up),
          [line] "v"(fields.line), [q] "m"(*reinterpret_cast<const FourInputs*>(q)));
  }

  [[gnu::always_inline]] static void add(Sums& sums, const Sums& other) {
    sums.s0 = _mm512_add_epi32(sums.s0, other.s0);
    sums.s1 = _mm512_add_epi32(sums.s1, other.s1);
    sums.s2 = _mm512_add_epi32(sums.s2, other.s2);
    sums.all = _mm512_add_epi32(sums.all, other.all);
    sums.line = _mm512_add_epi32(sums.line, other.line);
  }

  [[gnu::always_inline]] static void finish(const Sums& sums, std::int32_t q_sum, std::int32_t* out) {
    const __m512i offset = _mm512_set1_epi32(q_sum);
    const __m512i three = _mm512_set1_epi32(3);
    const __m512i s0 = sums.s0;
    const __m512i s1 = _mm512_srai_epi32(sums.s1, 2);
    const __m512i s2 = _mm512_srai_epi32(sums.s2, 4);
    const __m512i s3 = _mm512_srai_epi32(
        _mm512_sub_epi32(sums.all, _mm512_add_epi32(sums.s0, _mm512_add_epi32(sums.s1, sums.s2))), 6);
    // s0 + 3 (s1 + 3 (s2 + 3 s3)) = s0 + 3 s1 + 9 s2 + 27 s3
    __m512i lower = _mm512_add_epi32(s2, _mm512_mullo_epi32(s3, three));
    lower = _mm512_add_epi32(s1, _mm512_mullo_epi32(lower, three));
    lower = _mm512_add_epi32(s0, _mm512_mullo_epi32(lower, three));
    const __m512i s4 = _mm512_mullo_epi32(_mm512_sub_epi32(sums.line, lower),
                                          _mm512_set1_epi32(static_cast<std::int32_t>(kInverse)));
    _mm512_storeu_si512(out, _mm512_sub_epi32(s0, offset));
    _mm512_storeu_si512(out + 16, _mm512_sub_epi32(s1, offset));
    _mm512_storeu_si512(out + 32, _mm512_sub_epi32(s2, offset));
    _mm512_storeu_si512(out + 48, _mm512_sub_epi32(s3, offset));
    _mm512_storeu_si512(out + 64, _mm512_sub_epi32(s4, offset));
  }
};

}  // namespace

void product_tile_base3(const ProductTile& args) {
  switch (args.tokens) {
    case 1:
      return tile<BaseThree, 2>(args, OneSum{}, std::make_index_sequence<1>{});
    case 2:
      return tile<BaseThree, 1>(args, OneSum{}, std::make_index_sequence<2>{});
    case 3:
      return tile<BaseThree, 1>(args, OneSum{}, std::make_index_sequence<3>{});
    default:
      return tile<BaseThree, 1>(args, OneSum{}, std::make_index_sequence<4>{});
  }
}

}  // namespace trit::avx512_vnni

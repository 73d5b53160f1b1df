// SPDX-License-Identifier: MIT
//
// The stored form to base-3 panels, AVX-512 VBMI (docs/design/cpu-base3.md).
#include <immintrin.h>

#include <array>
#include <cstdint>

#include "cpu/avx512_vnni/avx512_vnni.h"
#include "cpu/avx512_vnni/lanes.h"
#include "cpu/avx512_vnni/stored_rows.h"

namespace trit::avx512_vnni {
namespace {

constexpr std::int64_t kPanelRows = 80;

/// t + 1 of a stored 2-bit field.
constexpr std::uint8_t code(std::size_t field) {
  constexpr std::uint8_t kCodes[4] = {1, 2, 1, 0};
  return kCodes[field % 4];
}

/// Tables of vpermb, whose index is the low six bits of a byte: w0, w1, w2 times the codes in bits 0..1, 2..3
/// and 4..5.
using Table = std::array<std::uint8_t, 64>;
constexpr Table table_of(int w0, int w1, int w2) {
  Table table{};
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<std::uint8_t>(w0 * code(i) + w1 * code(i / 4) + w2 * code(i / 16));
  }
  return table;
}
alignas(64) constexpr Table kFirstThree = table_of(1, 3, 9);
alignas(64) constexpr Table kFourth = table_of(0, 0, 27);
alignas(64) constexpr Table kFifth = table_of(81, 0, 0);

/// Byte 4 g + o: stored byte g, and where in a group of 8 such bytes its field o begins.
constexpr Table spread_of() {
  Table spread{};
  for (std::size_t i = 0; i < spread.size(); ++i) {
    spread[i] = static_cast<std::uint8_t>(i / 4);
  }
  return spread;
}
constexpr Table shifts_of() {
  Table shifts{};
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    shifts[i] = static_cast<std::uint8_t>(i / 4 % 2 * 32 + i % 4 * 2);
  }
  return shifts;
}
alignas(64) constexpr Table kSpread = spread_of();
alignas(64) constexpr Table kShifts = shifts_of();

[[gnu::always_inline]] inline __m512i load(const Table& table) { return _mm512_load_si512(table.data()); }

/// Sixteen stored bytes of rows l, l + 16, l + 32, l + 48 and of row l + 64 -> 16 dwords, one per line.
[[gnu::always_inline]] inline __m512i five_rows_to_dwords(__m512i four, __m128i fifth) {
  const __m512i fields = four_rows_to_dwords(four);
  // 16-bit shifts: what comes from the neighbour is above the six bits that are looked at.
  const __m512i first_four =
      _mm512_add_epi8(_mm512_permutexvar_epi8(fields, load(kFirstThree)),
                      _mm512_permutexvar_epi8(_mm512_srli_epi16(fields, 2), load(kFourth)));
  const __m512i spread = _mm512_permutexvar_epi8(load(kSpread), _mm512_castsi128_si512(fifth));
  const __m512i last = _mm512_multishift_epi64_epi8(load(kShifts), spread);
  return _mm512_add_epi8(first_four, _mm512_permutexvar_epi8(last, load(kFifth)));
}

}  // namespace

void prepare_panel_base3(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t rows,
                         std::int64_t in_features, std::uint8_t* panel) {
  prepare_lines(
      codes, row_bytes, rows, kPanelRows, in_features, panel,
      [&](const std::uint8_t* from) __attribute__((always_inline)) {
        return five_rows_to_dwords(load_rows(from, row_bytes),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 64 * row_bytes)));
      },
      [&](const std::uint8_t* from, std::int64_t left, __mmask16 bytes) __attribute__((always_inline)) {
        const __m128i fifth =
            64 < left ? _mm_maskz_loadu_epi8(bytes, from + 64 * row_bytes) : _mm_setzero_si128();
        return five_rows_to_dwords(load_rows_partly(from, row_bytes, left, bytes), fifth);
      });
}

}  // namespace trit::avx512_vnni

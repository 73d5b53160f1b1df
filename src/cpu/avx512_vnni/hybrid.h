// SPDX-License-Identifier: MIT
//
// The parts of the hybrid block (docs/kernels.md, "Hybrid"): two panels of 64 output rows with four tokens,
// one panel by vpdpbusd, the other one by lookups of three inputs at a time.
//
// Everything is cut along k into units of 36 inputs = 9 lines of a panel = 12 triples. Triple (o, g), o < 4,
// g < 3, is made of the inputs at offset o of lines 3g, 3g+1, 3g+2 of its unit: inputs 12g + o, + 4, + 8. So
// it is found in the panels without moving bytes across lanes.
//
//   index   5 bits, c0 + 3 c1 + 9 c2 of the triple's codes c = t + 1: 0..26
//   table   27 int16, entry c0 + 3 c1 + 9 c2 = c0 q0 + c1 q1 + c2 q2; one zmm, one token
//   lookup  vpermw(table, indices): 32 output rows; the sum of all of them is too large by the sum of q
//
// Weights of a unit, `kUnitBytes`, in the order of their use:
//   9 lines of the first panel, 64 bytes each, as they are
//   4 words x 2 halves of 32 int16: word o of a row has the indices of triples (o, 0), (o, 1), (o, 2) in bits
//   0-4, 5-9, 10-14. Half h, even lane 2l: row 32h + l of the second panel; odd lane 2l + 1: row 32h + 16 +
//   l.
#pragma once

#include <cstdint>

namespace trit::avx512_vnni::hybrid {

inline constexpr std::int64_t kTokens = 4;
inline constexpr std::int64_t kPanels = 2;

inline constexpr std::int64_t kUnitLines = 9;
inline constexpr std::int64_t kUnitInputs = 4 * kUnitLines;
inline constexpr std::int64_t kUnitTriples = kUnitInputs / 3;
inline constexpr std::int64_t kUnitBytes = 64 * kUnitLines + 2 * 64 * kUnitTriples / 3;

// Units between two visits of the 32-bit sums. Tables of 6 units are 18 KiB and a tile passes 9 KiB of
// weights, sums and q beside them: all of it stays in an L1 of 32 KiB, and with 7 it does not.
inline constexpr std::int64_t kUnits = 6;
inline constexpr std::int64_t kInputs = kUnits * kUnitInputs;
// So no check of q is needed: whatever the inputs, the sum of q * t over kInputs fits in int16.
static_assert(128 * kInputs <= 32767);

/// What a tile needs of four tokens and kInputs inputs.
struct alignas(64) Tokens {
  std::int16_t tables[kUnits * kUnitTriples][kTokens][32];  // triple 3 o + g of each unit
  std::int8_t q[kTokens][256];                              // kInputs of them, then zeros
  std::int16_t start[kTokens];                              // minus the sum of q, modulo 2^16
};

/// 32-bit sums of a tile, per token: of the first panel's fields 0, 1, 2 and of its lines, as in product.cpp;
/// of rows 0-15, 16-31, 32-47, 48-63 of the second panel, exact.
struct alignas(64) Sums {
  std::int32_t token[kTokens][8][16];
};

/// Tables and inputs of four tokens, `q_stride` apart, from k inputs (cut to kInputs); the rest counts as
/// zero.
void prepare_tokens(const std::int8_t* q, std::int64_t q_stride, std::int64_t k, Tokens& tokens);
/// The weights of `units` units of two panels, `panel_bytes` apart, that have `lines` lines left: where those
/// are fewer than 9 a unit, code 0 takes their place, and meets inputs of zero.
void prepare_weights(const std::uint8_t* panels, std::int64_t panel_bytes, std::int64_t lines,
                     std::int64_t units, std::uint8_t* weights);
/// sums += `units` units (1..kUnits) of weights x tokens.
void tile(const std::uint8_t* weights, const Tokens& tokens, std::int64_t units, Sums& sums);

}  // namespace trit::avx512_vnni::hybrid

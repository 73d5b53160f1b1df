// SPDX-License-Identifier: MIT
//
// The stored form of a ternary matrix: "rows-2bit", 2 bits a weight.
//
//   codes   uint8 [out_features, ceil(in_features / 4)]; byte j of row r holds columns 4j..4j+3, low bits
//           first, each a 2-bit two's complement code: 0 = 0, 1 = +1, 3 = -1 (2 never occurs).
//           Columns past in_features are 0.
//   scale   float32 [1] (per tensor), [out_features] (per output row) or [out_features, groups] (per group of
//           `group` inputs of a row, the last one maybe shorter); it multiplies: W = t * scale.
//
// Example: the row +1 0 -1 0 | 0 +1 is the two bytes 0x31 0x04.
// Files hold this packed form only. Kernels prepare their own layouts from it when a model is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// Element type of activations and outputs.
enum class DataType : std::uint8_t { float32, bfloat16, float16 };

/// Bytes of one element.
std::size_t size_of(DataType type);
/// "float32", "bfloat16" or "float16".
std::string_view name_of(DataType type);

/// Whether a ternary matrix has one weight scale, one per output row, or one per group of inputs of a row.
/// Functions that take `group` take the number of inputs of a group beside it.
enum class ScaleGranularity : std::uint8_t { tensor, row, group };

/// The number of inputs of a group is a multiple of this.
inline constexpr std::int64_t kGroupStep = 32;
constexpr bool is_group_size(std::int64_t group) { return group >= kGroupStep && group % kGroupStep == 0; }
/// Groups of a row, ceil(in_features / group); 1 for group = 0, where a row has one scale.
constexpr std::int64_t groups_of(std::int64_t in_features, std::int64_t group) {
  return group == 0 ? 1 : (in_features + group - 1) / group;
}

/// Bytes of one stored row: ceil(in_features / 4).
constexpr std::int64_t packed_row_bytes(std::int64_t in_features) { return (in_features + 3) / 4; }

/// A packed ternary matrix, by reference.
struct TernaryView {
  std::int64_t out_features = 0;        // N >= 1
  std::int64_t in_features = 0;         // K >= 1
  std::span<const std::uint8_t> codes;  // [N, packed_row_bytes(K)]
  std::span<const float> scale;         // [1] or [N], or [N, groups_of(K, group)]; finite, positive
  std::int64_t group = 0;               // inputs of a group, a multiple of 32; 0: a scale per tensor or row

  ScaleGranularity granularity() const {
    return group != 0          ? ScaleGranularity::group
           : scale.size() == 1 ? ScaleGranularity::tensor
                               : ScaleGranularity::row;
  }
};

/// A packed ternary matrix that owns its memory.
struct TernaryMatrix {
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  std::vector<std::uint8_t> codes;
  std::vector<float> scale;
  std::int64_t group = 0;

  TernaryView view() const { return {out_features, in_features, codes, scale, group}; }
};

/// Throws Error, naming `name`, the row and the column, unless sizes fit, every code is 0, 1 or 3, the
/// padding is 0, `group` is 0 or a multiple of 32, and every scale is finite and positive.
void check(const TernaryView& matrix, std::string_view name);

/// Packs t[k] in {-1, 0, +1} into packed_row_bytes(t.size()) bytes.
void pack_row(std::span<const std::int8_t> t, std::span<std::uint8_t> codes);
/// The inverse of pack_row: t.size() weights from `codes`.
void unpack_row(std::span<const std::uint8_t> codes, std::span<std::int8_t> t);

/// bfloat16 and float16 to float32 (exact), and back, rounding half to even. Integer arithmetic: denormals
/// are kept in every floating-point environment, and a NaN stays a (quiet) NaN.
float bfloat16_to_float(std::uint16_t bits);
float float16_to_float(std::uint16_t bits);
std::uint16_t float_to_bfloat16(float value);
std::uint16_t float_to_float16(float value);

}  // namespace trit

TRIT_EXPORT_END

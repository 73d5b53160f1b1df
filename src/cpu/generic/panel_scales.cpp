// SPDX-License-Identifier: MIT
#include "cpu/generic/panel_scales.h"

#include <algorithm>
#include <bit>

namespace trit::generic {
namespace {

/// Whether float16 holds the value exactly; false for infinities and NaN.
bool is_float16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & 0x7fffffffU;
  const std::uint32_t exponent = bits >> 23;
  // A multiple of 2^-24 with 11 bits: below 2^-14 (exponent 113) each power of two less costs a bit.
  const std::uint32_t lost = exponent >= 113 ? 13 : std::min(126 - exponent, 24U);
  const std::uint32_t significand = (bits & 0x7fffffU) | (exponent == 0 ? 0U : 0x800000U);
  return bits == 0 || (exponent <= 142 && exponent > 0 && (significand & ((1U << lost) - 1U)) == 0);
}

template <typename Stored, typename Convert>
void transpose(const TernaryView& weight, std::int64_t first_row, std::int64_t rows, std::int64_t panel_rows,
               Stored* out, const Convert& convert) {
  const std::int64_t groups = groups_of(weight.in_features, weight.group);
  for (std::int64_t group = 0; group < groups; ++group) {
    for (std::int64_t row = 0; row < panel_rows; ++row) {
      *out++ = row < rows
                   ? convert(weight.scale[static_cast<std::size_t>((first_row + row) * groups + group)])
                   : Stored{};
    }
  }
}

}  // namespace

DataType panel_scale_type(std::span<const float> scales) {
  return std::ranges::all_of(scales, is_float16) ? DataType::float16 : DataType::float32;
}

bool are_scalable(std::span<const float> scales) {
  return std::ranges::all_of(scales, [](float s) { return s >= kMinGroupScale && s <= kMaxGroupScale; });
}

void prepare_panel_scales(const TernaryView& weight, std::int64_t first_row, std::int64_t rows,
                          std::int64_t panel_rows, DataType type, std::uint8_t* out) {
  if (type == DataType::float16) {
    transpose(weight, first_row, rows, panel_rows, reinterpret_cast<std::uint16_t*>(out), float_to_float16);
  } else {
    transpose(weight, first_row, rows, panel_rows, reinterpret_cast<float*>(out), [](float s) { return s; });
  }
}

}  // namespace trit::generic

// SPDX-License-Identifier: MIT
#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "cpu/scalar/scalar.h"
#include "format/quantize_inputs.h"

namespace trit::scalar {

void norm_quant_row(const NormQuantRow& row) {
  const auto inputs = static_cast<std::size_t>(row.in_features);
  std::vector<float> converted;
  std::span<const float> x;
  if (row.x_type == DataType::float32) {
    x = {static_cast<const float*>(row.x), inputs};
  } else {
    const std::span<const std::uint16_t> half(static_cast<const std::uint16_t*>(row.x), inputs);
    converted.resize(inputs);
    std::transform(half.begin(), half.end(), converted.begin(),
                   row.x_type == DataType::bfloat16 ? bfloat16_to_float : float16_to_float);
    x = converted;
  }
  const std::span<const float> norm_weight =
      row.norm_weight == nullptr ? std::span<const float>() : std::span(row.norm_weight, inputs);
  const std::span<std::int8_t> q(row.q, inputs);
  TokenScales scales{};
  if (row.row_rstd != nullptr) {
    const float mean_square = *row.row_rstd == 0 ? std::numeric_limits<float>::infinity() : 0.0F;
    scales = {quantize_inputs(x, row.norm, norm_weight, {mean_square, *row.row_rstd}, q), *row.row_rstd};
  } else {
    scales = trit::norm_quant_row(x, row.norm, norm_weight, row.eps, q);
  }
  std::fill(row.q + inputs, row.q + padded_in_features(row.in_features), std::int8_t{0});
  *row.scale = scales.scale;
  *row.rstd = scales.rstd;
  *row.q_sum = std::accumulate(q.begin(), q.end(), std::int32_t{0});
}

}  // namespace trit::scalar

// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "cpu/scalar/scalar.h"

namespace trit::scalar {

void product_tile(const ProductTile& tile) {
  std::fill_n(tile.acc, tile.tokens, 0);
  for (std::int64_t k = 0; k < tile.k; k += 4) {
    std::array<std::int8_t, 4> t;
    unpack_row({tile.panel + k / 4, 1}, t);
    for (std::int64_t token = 0; token < tile.tokens; ++token) {
      const std::int8_t* q = tile.q + token * tile.q_stride + k;
      tile.acc[token] += q[0] * t[0] + q[1] * t[1] + q[2] * t[2] + q[3] * t[3];
    }
  }
}

void epilogue_row(const EpilogueRow& row) {
  for (std::int64_t i = 0; i < row.rows; ++i) {
    const float beta = row.weight_scale[row.weight_scale_per_row ? i : 0];
    const float* const bias = row.bias == nullptr ? nullptr : row.bias + i;
    float y = 0;
    if (row.sums == nullptr) {
      y = epilogue(row.acc[i], row.token_scale, beta, bias);
    } else {
      y = row.sums[i] * row.token_scale;
      y = bias == nullptr ? y : y + *bias;
    }
    switch (row.y_type) {
      case DataType::float32:
        static_cast<float*>(row.y)[i] = y;
        break;
      case DataType::bfloat16:
        static_cast<std::uint16_t*>(row.y)[i] = float_to_bfloat16(y);
        break;
      case DataType::float16:
        static_cast<std::uint16_t*>(row.y)[i] = float_to_float16(y);
        break;
    }
  }
}

void group_row(const GroupRow& row, std::int64_t panel_rows) {
  for (std::int64_t i = 0; i < panel_rows; ++i) {
    const float beta = row.weight_scale.type == DataType::float16
                           ? float16_to_float(static_cast<const std::uint16_t*>(row.weight_scale.values)[i])
                           : static_cast<const float*>(row.weight_scale.values)[i];
    row.sums[i] = std::fma(static_cast<float>(row.acc[i]), beta * row.token_scale, row.sums[i]);
  }
}

}  // namespace trit::scalar

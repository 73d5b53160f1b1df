// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "cpu/scalar/scalar.h"
#include "trit/quantize.h"

namespace trit::scalar {

void prepare_panel(const std::uint8_t* codes, std::int64_t row_bytes, std::int64_t /*rows*/,
                   std::int64_t /*in_features*/, std::uint8_t* panel) {
  std::copy_n(codes, row_bytes, panel);
}

float abs_sum_row(const float* w, std::int64_t in_features) {
  // lane_sum of quantize.h on |w| without a copy of the row.
  std::array<float, kLanes> acc{};
  for (std::int64_t k = 0; k < in_features; ++k) {
    acc[static_cast<std::size_t>(k % kLanes)] += std::fabs(w[k]);
  }
  return lane_sum(std::span<const float>(acc));
}

void ternarize_pack_row(const float* w, float inverse, std::int64_t in_features, std::uint8_t* codes) {
  for (std::int64_t k = 0; k < in_features; k += 4) {
    std::array<std::int8_t, 4> t{};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(4, in_features - k); ++i) {
      const float scaled = w[k + i] * inverse;
      t[static_cast<std::size_t>(i)] =
          std::isnan(scaled) ? std::int8_t{0}
                             : static_cast<std::int8_t>(std::clamp(std::nearbyint(scaled), -1.0F, 1.0F));
    }
    pack_row(t, {codes + k / 4, 1});
  }
}

void dequantize_row(const std::uint8_t* codes, std::int64_t in_features, float scale, float* w) {
  for (std::int64_t k = 0; k < in_features; k += 4) {
    std::array<std::int8_t, 4> t;
    unpack_row({codes + k / 4, 1}, t);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(4, in_features - k); ++i) {
      w[k + i] = static_cast<float>(t[static_cast<std::size_t>(i)]) * scale;
    }
  }
}

}  // namespace trit::scalar

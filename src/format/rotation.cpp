// SPDX-License-Identifier: MIT
#include "trit/rotation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "trit/error.h"

namespace trit {

void check(const Rotation& rotation, std::int64_t in_features) {
  const bool is_block = rotation.block >= kMinRotationBlock && rotation.block <= kMaxRotationBlock &&
                        std::has_single_bit(static_cast<std::uint64_t>(rotation.block));
  if (!is_block || in_features % rotation.block != 0) {
    throw Error("rotation: blocks of " + std::to_string(rotation.block) + " inputs for " +
                std::to_string(in_features) + " inputs, wanted 512, 1024, 2048 or 4096, a divisor");
  }
  if (rotation.signs == nullptr) {
    return;
  }
  const auto* const end = rotation.signs + in_features;
  const auto* const bad =
      std::find_if(rotation.signs, end, [](std::int8_t sign) { return sign != 1 && sign != -1; });
  if (bad != end) {
    throw Error("rotation: the sign of input " + std::to_string(bad - rotation.signs) + " is " +
                std::to_string(*bad) + ", wanted +1 or -1");
  }
}

void rotate_row(std::span<float> x, const Rotation& rotation) {
  const auto block = static_cast<std::size_t>(rotation.block);
  const float factor = 1.0F / std::sqrt(static_cast<float>(rotation.block));
  for (std::size_t k = 0; rotation.signs != nullptr && k < x.size(); ++k) {
    x[k] = rotation.signs[k] < 0 ? -x[k] : x[k];
  }
  for (std::size_t first = 0; first < x.size(); first += block) {
    float* const z = x.data() + first;
    for (std::size_t h = 1; h < block; h *= 2) {
      for (std::size_t pairs = 0; pairs < block; pairs += 2 * h) {
        for (std::size_t j = pairs; j < pairs + h; ++j) {
          const float a = z[j];
          const float b = z[j + h];
          z[j] = a + b;
          z[j + h] = a - b;
        }
      }
    }
    std::transform(z, z + block, z, [factor](float value) { return value * factor; });
  }
}

}  // namespace trit

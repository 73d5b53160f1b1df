// SPDX-License-Identifier: MIT
#include "format/rotation.h"

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

void apply_signs(std::span<float> x, const std::int8_t* signs) {
  if (signs == nullptr) {
    return;
  }
  for (std::size_t k = 0; k < x.size(); ++k) {  // by bits: compilers make vectors of that
    const auto sign = static_cast<std::uint32_t>(static_cast<std::int32_t>(signs[k])) & 0x80000000U;
    x[k] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(x[k]) ^ sign);
  }
}

void walsh_hadamard_row(std::span<float> x, std::int64_t block) {
  const auto size = static_cast<std::size_t>(block);
  const float factor = 1.0F / std::sqrt(static_cast<float>(block));
  for (std::size_t first = 0; first < x.size(); first += size) {
    float* const z = x.data() + first;
    for (std::size_t h = 1; h < size; h *= 2) {
      for (std::size_t pairs = 0; pairs < size; pairs += 2 * h) {
        for (std::size_t j = pairs; j < pairs + h; ++j) {
          const float a = z[j];
          const float b = z[j + h];
          z[j] = a + b;
          z[j + h] = a - b;
        }
      }
    }
    std::transform(z, z + size, z, [factor](float value) { return value * factor; });
  }
}

void rotate_row(std::span<float> x, const Rotation& rotation) {
  apply_signs(x, rotation.signs);
  walsh_hadamard_row(x, rotation.block);
}

void rotate_row_back(std::span<float> z, const Rotation& rotation) {
  walsh_hadamard_row(z, rotation.block);
  apply_signs(z, rotation.signs);
}

}  // namespace trit

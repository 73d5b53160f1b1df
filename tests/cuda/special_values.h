// SPDX-License-Identifier: MIT
//
// Random floats among which NaN, infinities, zeros of both signs, denormals and the largest numbers are
// frequent.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace trit::test {

/// `share` of the values are special, the others normal in [-4, 4].
template <typename Generator>
std::vector<float> special_values(Generator& generator, std::size_t count, double share) {
  using Limits = std::numeric_limits<float>;
  const std::array specials{Limits::quiet_NaN(),
                            -Limits::quiet_NaN(),
                            Limits::infinity(),
                            -Limits::infinity(),
                            0.0F,
                            -0.0F,
                            Limits::denorm_min(),
                            -Limits::denorm_min(),
                            1e-39F,
                            -1e-39F,
                            Limits::min(),
                            -Limits::min(),
                            Limits::max(),
                            -Limits::max()};
  std::bernoulli_distribution special(share);
  std::uniform_int_distribution<std::size_t> which(0, specials.size() - 1);
  std::uniform_real_distribution<float> plain(-4, 4);
  std::vector<float> values(count);
  for (float& v : values) {
    v = special(generator) ? specials[which(generator)] : plain(generator);
  }
  return values;
}

}  // namespace trit::test

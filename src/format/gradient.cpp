// SPDX-License-Identifier: MIT
//
// The 8-bit backward in plain loops (gradient.h). Slow on purpose: it is what the kernels are compared with.
#include "trit/gradient.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace trit {
namespace {

// The largest magnitude by the bits: a NaN is larger than infinity.
float largest_of(std::span<const float> values) {
  std::uint32_t largest = 0;
  for (const float value : values) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
  }
  return std::bit_cast<float>(largest);
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t counter) {
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32U);
  std::array<std::uint32_t, 4> words = {
      static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32U),
      static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(offset >> 32U)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * words[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * words[2];
    words = {
        static_cast<std::uint32_t>(product1 >> 32U) ^ words[1] ^ key0, static_cast<std::uint32_t>(product1),
        static_cast<std::uint32_t>(product0 >> 32U) ^ words[3] ^ key1, static_cast<std::uint32_t>(product0)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return words;
}

float gradient_random(const GradientRounding& rounding, std::uint64_t offset, std::int64_t token,
                      std::int64_t output, std::int64_t out_features) {
  const std::uint64_t counter = gradient_counter(token, output, out_features);
  const std::uint32_t word = philox(rounding.seed, offset, counter)[static_cast<std::size_t>(output % 4)];
  return static_cast<float>(word >> 8U) * 0x1p-24F;
}

GradientScale gradient_scale(float largest) {
  if (!std::isfinite(largest)) {
    return {0.0F, std::numeric_limits<float>::quiet_NaN()};
  }
  const float absmax = std::max(largest, kMinGradient);
  return {127.0F / absmax, absmax / 127.0F};
}

std::int8_t round_gradient(float v, float factor) {
  const float code = std::nearbyintf(v * factor);
  return std::isnan(code) ? std::int8_t{0} : static_cast<std::int8_t>(std::clamp(code, -127.0F, 127.0F));
}

std::int8_t round_gradient(float v, float factor, float random) {
  const float scaled = v * factor;
  const float below = std::floor(scaled);
  const float code = below + (random < scaled - below ? 1.0F : 0.0F);
  return std::isnan(code) ? std::int8_t{0} : static_cast<std::int8_t>(std::clamp(code, -127.0F, 127.0F));
}

void gradient_input_int8(const GradientProblem& problem, std::span<float> grad_x) {
  const auto outputs = static_cast<std::size_t>(problem.out_features);
  const auto inputs = static_cast<std::size_t>(problem.in_features);
  const bool per_row = problem.weight_scale.size() > 1;
  std::vector<float> v(outputs);
  std::vector<std::int8_t> codes(outputs);
  for (std::size_t m = 0; m < static_cast<std::size_t>(problem.tokens); ++m) {
    for (std::size_t n = 0; n < outputs; ++n) {
      v[n] =
          per_row ? problem.grad[m * outputs + n] * problem.weight_scale[n] : problem.grad[m * outputs + n];
    }
    const GradientScale scale = gradient_scale(largest_of(v));
    for (std::size_t n = 0; n < outputs; ++n) {
      codes[n] = problem.rounding.stochastic
                     ? round_gradient(v[n], scale.factor,
                                      gradient_random(problem.rounding, problem.rounding.offset,
                                                      static_cast<std::int64_t>(m),
                                                      static_cast<std::int64_t>(n), problem.out_features))
                     : round_gradient(v[n], scale.factor);
    }
    for (std::size_t k = 0; k < inputs; ++k) {
      std::int32_t sum = 0;
      for (std::size_t n = 0; n < outputs; ++n) {
        sum += codes[n] * problem.t[n * inputs + k];
      }
      grad_x[m * inputs + k] =
          (static_cast<float>(sum) * scale.scale) * (per_row ? 1.0F : problem.weight_scale[0]);
    }
  }
}

void gradient_weight_int8(const GradientProblem& problem, std::span<float> grad_w) {
  const auto outputs = static_cast<std::size_t>(problem.out_features);
  const auto inputs = static_cast<std::size_t>(problem.in_features);
  const auto tokens = static_cast<std::size_t>(problem.tokens);
  std::fill(grad_w.begin(), grad_w.end(), 0.0F);
  for (std::size_t first = 0; first < tokens; first += kMaxGradientTokens) {
    const std::size_t count = std::min<std::size_t>(tokens - first, kMaxGradientTokens);
    std::vector<float> v(count);
    std::vector<std::int8_t> codes(count);
    for (std::size_t n = 0; n < outputs; ++n) {
      for (std::size_t i = 0; i < count; ++i) {
        v[i] = problem.grad[(first + i) * outputs + n] * problem.token_scale[first + i];
      }
      const GradientScale scale = gradient_scale(largest_of(v));
      for (std::size_t i = 0; i < count; ++i) {
        codes[i] = problem.rounding.stochastic
                       ? round_gradient(v[i], scale.factor,
                                        gradient_random(problem.rounding, problem.rounding.offset + 1,
                                                        static_cast<std::int64_t>(first + i),
                                                        static_cast<std::int64_t>(n), problem.out_features))
                       : round_gradient(v[i], scale.factor);
      }
      for (std::size_t k = 0; k < inputs; ++k) {
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
          sum += codes[i] * problem.q[(first + i) * inputs + k];
        }
        const float part = static_cast<float>(sum) * scale.scale;
        float& total = grad_w[n * inputs + k];
        total = first == 0 ? part : total + part;
      }
    }
  }
}

}  // namespace trit

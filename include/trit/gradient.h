// SPDX-License-Identifier: MIT
//
// The 8-bit backward of a ternary layer as scalar code: the definition that the kernels match bit for bit
// (docs/numerics.md). With dY [M, N], weights t [N, K] and beta, activations q [M, K] and s of the forward:
//
//   dX [M, K]   per token m     v[n] = dY[m][n], times beta[n] where each output row has a scale of its own
//                               (g, a) = quantize_gradient(v)      dX = ((float)(sum_n g[n] t[n][k]) * a) * beta
//   dW [N, K]   per output n    v[m] = dY[m][n] * s[m]
//                               (g, a) = quantize_gradient(v)      dW = (float)(sum_m g[m] q[m][k]) * a
//
// Sums are int32 and exact; every other operation is fp32 and rounded by itself. beta is 1 in the first
// formula where it is a part of v.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "trit/export.h"

TRIT_EXPORT_BEGIN

namespace trit {

/// How gradients become integers. Stochastic: x becomes floor(x) + 1 with probability x - floor(x), so that
/// the expected value is x. The random number of an element depends on seed, offset and its position alone.
struct GradientRounding {
  bool stochastic = false;  // else to nearest, half to even
  std::uint64_t seed = 0;
  std::uint64_t offset = 0;  // dX takes the numbers of `offset`, dW those of `offset` + 1
};

/// The smallest magnitude that a scale is made from, so that a row of zeros does not divide by zero.
inline constexpr float kMinGradient = 0x1p-100F;

/// Tokens of one product dYᵀ · q: 127 * 128 * 131,072 < 2^31. More tokens are added in parts of this many, in
/// fp32 and in order, each with scales of its own.
inline constexpr std::int64_t kMaxGradientTokens = 131'072;

/// Philox4x32-10 (Salmon et al., 2011): four random words of a counter.
std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::uint64_t offset, std::uint64_t counter);
/// The counter of gradient dY[token][output]: token * ceil(N / 4) + output / 4.
constexpr std::uint64_t gradient_counter(std::int64_t token, std::int64_t output, std::int64_t out_features) {
  return static_cast<std::uint64_t>(token * ((out_features + 3) / 4) + output / 4);
}
/// The random number in [0, 1) of gradient dY[token][output]: the high 24 bits of word output % 4 of its counter.
float gradient_random(const GradientRounding& rounding, std::uint64_t offset, std::int64_t token,
                      std::int64_t output, std::int64_t out_features);

/// 127 / a with a = max(m, kMinGradient) for the largest magnitude m; the scale is a / 127. For an m that is
/// NaN or infinite: 0 and NaN, so that a bad gradient is never hidden.
struct GradientScale {
  float factor;
  float scale;
};
GradientScale gradient_scale(float largest);
/// clamp(rint(v * factor), -127, 127); stochastic: clamp(f + (random < x - f)), x = v * factor, f = floor(x).
std::int8_t round_gradient(float v, float factor);
std::int8_t round_gradient(float v, float factor, float random);

/// dX and dW by the formulas above, from codes (format.h): the oracle of the tests. Shapes as above; codes t
/// are -1, 0, +1; beta [1] or [N].
struct GradientProblem {
  std::span<const float> grad;          // dY [M, N]
  std::span<const std::int8_t> t;       // [N, K]
  std::span<const float> weight_scale;  // beta [1] or [N]
  std::span<const std::int8_t> q;       // [M, K]
  std::span<const float> token_scale;   // s [M]
  std::int64_t tokens, out_features, in_features;
  GradientRounding rounding = {};
};
void gradient_input_int8(const GradientProblem& problem, std::span<float> grad_x);
void gradient_weight_int8(const GradientProblem& problem, std::span<float> grad_w);

}  // namespace trit

TRIT_EXPORT_END

// SPDX-License-Identifier: MIT
//
// The definition of the 8-bit backward (gradient.h): known answers, bad values, and that rounding at random is
// right on average.
#include "trit/gradient.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace trit::test {
namespace {

// The known answers of Random123 1.14 for philox4x32_10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox(0, 0, 0),
            (std::array<std::uint32_t, 4>{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  EXPECT_EQ(philox(~0ULL, ~0ULL, ~0ULL),
            (std::array<std::uint32_t, 4>{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  EXPECT_EQ(philox(0x299f31d0'a4093822ULL, 0x03707344'13198a2eULL, 0x85a308d3'243f6a88ULL),
            (std::array<std::uint32_t, 4>{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST(GradientScale, OfGoodAndBadMagnitudes) {
  EXPECT_EQ(gradient_scale(127.0F).factor, 1.0F);
  EXPECT_EQ(gradient_scale(127.0F).scale, 1.0F);
  EXPECT_EQ(gradient_scale(0.0F).factor, 127.0F / kMinGradient);
  EXPECT_TRUE(std::isfinite(gradient_scale(std::numeric_limits<float>::max()).factor));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_EQ(gradient_scale(bad).factor, 0.0F);
    EXPECT_TRUE(std::isnan(gradient_scale(bad).scale));
  }
}

TEST(RoundGradient, TiesToEvenAndNothingBeyond127) {
  EXPECT_EQ(round_gradient(2.5F, 1.0F), 2);
  EXPECT_EQ(round_gradient(-3.5F, 1.0F), -4);
  for (const float size : {1.0F, 3e-38F, 3e38F, 0.7F, 1e-12F}) {
    const GradientScale scale = gradient_scale(size);
    EXPECT_LE(std::abs(round_gradient(size, scale.factor)), 127);
    EXPECT_EQ(round_gradient(-size, scale.factor, 0.0F), size < 1e-30F ? 0 : -127) << size;
  }
  EXPECT_EQ(round_gradient(std::numeric_limits<float>::infinity(), 0.0F), 0);
}

TEST(RoundGradient, AtRandomIsRightOnAverage) {
  const GradientRounding rounding{true, 12345, 7};
  for (const float value : {0.25F, -0.25F, 3.9F, -126.5F, 0.0F}) {
    double sum = 0;
    constexpr int kCount = 40'000;
    for (int i = 0; i < kCount; ++i) {
      sum += round_gradient(value, 1.0F, gradient_random(rounding, rounding.offset, i / 100, i % 100, 100));
    }
    // The deviation of the mean is at most 0.5 / sqrt(40,000) = 0.0025.
    EXPECT_NEAR(sum / kCount, value, 0.0125) << value;
  }
}

TEST(GradientInt8, ABadGradientMakesItsRowAndItsOutputsNaN) {
  constexpr std::int64_t kTokens = 3;
  constexpr std::int64_t kOutputs = 4;
  constexpr std::int64_t kInputs = 2;
  std::vector<float> grad(kTokens * kOutputs, 1.0F);
  grad[1 * kOutputs + 2] = std::numeric_limits<float>::infinity();
  const std::vector<std::int8_t> t(kOutputs * kInputs, 1);
  const std::vector<std::int8_t> q(kTokens * kInputs, 100);
  const std::vector<float> beta = {0.5F};
  const std::vector<float> s(kTokens, 2.0F);
  const GradientProblem problem{grad, t, beta, q, s, kTokens, kOutputs, kInputs, {}};
  std::vector<float> grad_x(kTokens * kInputs);
  std::vector<float> grad_w(kOutputs * kInputs);
  gradient_input_int8(problem, grad_x);
  gradient_weight_int8(problem, grad_w);
  for (std::size_t i = 0; i < grad_x.size(); ++i) {
    EXPECT_EQ(std::isnan(grad_x[i]), i / kInputs == 1) << i;
    if (i / kInputs != 1) {
      EXPECT_FLOAT_EQ(grad_x[i], 2.0F);
    }
  }
  for (std::size_t i = 0; i < grad_w.size(); ++i) {
    EXPECT_EQ(std::isnan(grad_w[i]), i / kInputs == 2) << i;
    if (i / kInputs != 2) {
      EXPECT_FLOAT_EQ(grad_w[i], 600.0F);
    }
  }
}

}  // namespace
}  // namespace trit::test

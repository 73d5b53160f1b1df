// SPDX-License-Identifier: MIT
//
// Corners of the scalar definition that the golden case does not reach.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "trit/error.h"
#include "trit/quantize.h"

namespace trit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

// In float, 2^24 + 1 = 2^24: the order of lane_sum decides what survives.
TEST(LaneSum, Order) {
  std::vector<float> terms(257, 0.0F);
  terms[0] = 16777216.0F;
  terms[256] = 1.0F;  // the same accumulator: lost
  EXPECT_EQ(lane_sum(std::span<const float>(terms)), 16777216.0F);
  terms[256] = 0.0F;
  terms[1] = 1.0F;
  terms[3] = 1.0F;  // 1 + 1 first, in the tree's last step but one: kept
  EXPECT_EQ(lane_sum(std::span<const float>(terms)), 16777218.0F);
  EXPECT_EQ(lane_sum(std::span<const float>()), 0.0F);
  const std::vector<double> wide(1000, 0.5);
  EXPECT_EQ(lane_sum(std::span<const double>(wide)), 500.0);
}

TEST(NormQuant, TiesRoundToEven) {
  // The largest is 127, so the factor is one.
  const std::array x = {127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -126.5F, 126.5F};
  std::array<std::int8_t, 8> q;
  const TokenScales scales = norm_quant_row(x, Norm::none, {}, 0, q);
  EXPECT_EQ(scales.scale, 1.0F);
  EXPECT_EQ(scales.rstd, 1.0F);
  EXPECT_EQ(q, (std::array<std::int8_t, 8>{127, 0, 2, 2, 0, -2, -126, 126}));
}

TEST(NormQuant, ZeroRow) {
  const std::array x = {0.0F, -0.0F, 0.0F};
  std::array<std::int8_t, 3> q = {1, 1, 1};
  for (const Norm norm : {Norm::none, Norm::rms}) {
    const TokenScales scales = norm_quant_row(x, norm, {}, 1e-6F, q);
    EXPECT_EQ(scales.scale, 1e-5F / 127.0F);
    EXPECT_EQ(q, (std::array<std::int8_t, 3>{0, 0, 0}));
  }
}

TEST(NormQuant, BadRows) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      const std::array x = {1.0F, bad, 2.0F};
      std::array<std::int8_t, 3> q = {1, 1, 1};
      EXPECT_TRUE(std::isnan(norm_quant_row(x, norm, {}, 1e-6F, q).scale));
      EXPECT_EQ(q, (std::array<std::int8_t, 3>{0, 0, 0}));
    }
  }
  // Finite inputs whose square or whose weighted value is not.
  const std::array large = {1e20F, 1.0F};
  const std::array huge_weight = {3e38F, 1.0F};
  std::array<std::int8_t, 2> q = {1, 1};
  EXPECT_TRUE(std::isnan(norm_quant_row(large, Norm::rms, {}, 1e-6F, q).scale));
  EXPECT_TRUE(std::isnan(norm_quant_row(std::array{4.0F, 4.0F}, Norm::rms, huge_weight, 1e-6F, q).scale));
  EXPECT_FALSE(std::isnan(norm_quant_row(large, Norm::none, {}, 1e-6F, q).scale));
}

TEST(Ternarize, RoundsHalfToEvenAndKeepsNaNOut) {
  const std::array w = {0.5F, 0.50000006F, -0.5F, -0.50000006F, 1.5F, -kInfinity, kInfinity, kNan, 0.0F};
  std::array<std::int8_t, 9> t;
  ternarize_row(w, 1.0F, t);
  EXPECT_EQ(t, (std::array<std::int8_t, 9>{0, 1, 0, -1, 1, -1, 1, 0, 0}));
}

TEST(Absmean, SmallestScaleAndNaN) {
  const std::array<float, 4> zero{};
  EXPECT_EQ(absmean(zero, 2, 2, ScaleGranularity::tensor), std::vector<float>{1e-5F});
  EXPECT_EQ(absmean(zero, 2, 2, ScaleGranularity::row), (std::vector<float>{1e-5F, 1e-5F}));
  const std::array w = {1.0F, 3.0F, kNan, 1.0F};
  EXPECT_TRUE(std::isnan(absmean(w, 2, 2, ScaleGranularity::tensor)[0]));
  const std::vector<float> rows = absmean(w, 2, 2, ScaleGranularity::row);
  EXPECT_EQ(rows[0], 2.0F);
  EXPECT_TRUE(std::isnan(rows[1]));
}

TEST(Pack, NamesTheBadWeight) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    const std::array w = {1.0F, 1.0F, 1.0F, 1.0F, 1.0F, bad};
    try {
      static_cast<void>(pack(w, 2, 3, ScaleGranularity::tensor));
      FAIL() << "accepted " << bad;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("row 1, column 2"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(static_cast<void>(pack(std::array{1.0F}, 1, 2, ScaleGranularity::tensor)), Error);
  EXPECT_THROW(static_cast<void>(pack(std::span<const float>(), 0, 2, ScaleGranularity::tensor)), Error);
}

TEST(Epilogue, RoundsEachStep) {
  // 16777217 rounds to 2^24 before it is scaled; (acc * s) * beta overflows where acc * (s * beta) does not.
  EXPECT_EQ(epilogue(16777217, 1.0F, 1.0F, nullptr), 16777216.0F);
  EXPECT_EQ(epilogue(1 << 20, 1e38F, 1e-30F, nullptr), kInfinity);
  const float bias = 1.0F;
  EXPECT_EQ(epilogue(3, 0.5F, 2.0F, &bias), 4.0F);
}

}  // namespace
}  // namespace trit

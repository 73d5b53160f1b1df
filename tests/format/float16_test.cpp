// SPDX-License-Identifier: MIT
//
// The 16-bit types: every value both ways, and rounding against exact arithmetic in double.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "trit/format.h"

namespace trit {
namespace {

struct Half {
  const char* name;
  int exponent_bits;
  int fraction_bits;
  float (*to_float)(std::uint16_t);
  std::uint16_t (*from_float)(float);

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  unsigned infinity() const { return ((1U << exponent_bits) - 1U) << fraction_bits; }

  // The value that the bits mean, exact in double.
  double value(unsigned bits) const {
    const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
    const int exponent = static_cast<int>((bits & 0x7fffU) >> fraction_bits);
    const int fraction = static_cast<int>(bits & ((1U << fraction_bits) - 1U));
    const int implicit = exponent == 0 ? 0 : 1 << fraction_bits;
    return sign * std::ldexp(implicit + fraction, std::max(exponent, 1) - bias() - fraction_bits);
  }
  // The nearest of all finite values and the overflow limit, ties to even bits: by search, not by bit tricks.
  std::uint16_t nearest(float x) const {
    const unsigned sign = std::signbit(x) ? 0x8000U : 0U;
    const double magnitude = std::fabs(static_cast<double>(x));
    unsigned low = 0;
    unsigned high = infinity();  // its "value" is the next power of two: the overflow limit for rounding
    while (high - low > 1) {
      const unsigned middle = (low + high) / 2;
      (value(middle) <= magnitude ? low : high) = middle;
    }
    if (magnitude >= value(infinity())) {
      return static_cast<std::uint16_t>(sign | infinity());
    }
    const double below = magnitude - value(low);
    const double above = value(high) - magnitude;
    const bool up = above < below || (above == below && (low & 1U) != 0);
    return static_cast<std::uint16_t>(sign | (up ? high : low));
  }
};

class HalfTest : public testing::TestWithParam<Half> {};

TEST_P(HalfTest, EveryValueBothWays) {
  const Half& half = GetParam();
  for (unsigned bits = 0; bits <= 0xffffU; ++bits) {
    const auto stored = static_cast<std::uint16_t>(bits);
    const float value = half.to_float(stored);
    const unsigned magnitude = bits & 0x7fffU;
    if (magnitude > half.infinity()) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      const float back = half.to_float(half.from_float(value));
      ASSERT_TRUE(std::isnan(back)) << bits;
      continue;
    }
    if (magnitude == half.infinity()) {
      ASSERT_TRUE(std::isinf(value)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), half.value(bits)) << bits;
    }
    ASSERT_EQ(std::signbit(value), bits >= 0x8000U) << bits;
    ASSERT_EQ(half.from_float(value), stored) << bits;
  }
}

// Half way between neighbours, and one float step to each side of it.
TEST_P(HalfTest, TiesRoundToEven) {
  const Half& half = GetParam();
  for (unsigned bits = 0; bits < half.infinity(); ++bits) {
    const auto tie = static_cast<float>((half.value(bits) + half.value(bits + 1)) / 2);
    for (const float sign : {1.0F, -1.0F}) {
      for (const float x : {std::nextafterf(tie, 0), tie, std::nextafterf(tie, INFINITY)}) {
        ASSERT_EQ(half.from_float(sign * x), half.nearest(sign * x)) << bits << ' ' << x;
      }
    }
  }
}

TEST_P(HalfTest, RandomFloats) {
  const Half& half = GetParam();
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 300000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(half.to_float(half.from_float(x))));
    } else if (std::isinf(x)) {
      ASSERT_EQ(half.to_float(half.from_float(x)), x);
    } else {
      ASSERT_EQ(half.from_float(x), half.nearest(x)) << x;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, HalfTest,
                         testing::Values(Half{"bfloat16", 8, 7, bfloat16_to_float, float_to_bfloat16},
                                         Half{"float16", 5, 10, float16_to_float, float_to_float16}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(DataType, NamesAndSizes) {
  EXPECT_EQ(name_of(DataType::float32), "float32");
  EXPECT_EQ(name_of(DataType::bfloat16), "bfloat16");
  EXPECT_EQ(name_of(DataType::float16), "float16");
  EXPECT_EQ(size_of(DataType::float32), 4U);
  EXPECT_EQ(size_of(DataType::bfloat16), 2U);
  EXPECT_EQ(size_of(DataType::float16), 2U);
}

}  // namespace
}  // namespace trit

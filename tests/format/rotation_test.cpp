// SPDX-License-Identifier: MIT
//
// The rotation against golden values that another program computed, and against the matrix H.
#include "trit/rotation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "format/golden_case.h"
#include "trit/error.h"

namespace trit::test {
namespace {

TEST(Rotation, Golden) {
  const GoldenCase golden;
  std::vector<float> z(golden.x.begin(), golden.x.begin() + 512);
  std::vector<std::int8_t> signs(512);
  for (std::size_t k = 0; k < 512; ++k) {
    signs[k] = golden.w[k] < 0 ? -1 : 1;
  }
  rotate_row(z, {512, signs.data()});
  EXPECT_EQ(bits_of({z.begin(), z.begin() + 4}),
            (std::vector<Bits>{0x3df49d60, 0x404e794b, 0x3f525798, 0x3f86ecc0}));
  EXPECT_EQ(bits_of({z.end() - 4, z.end()}),
            (std::vector<Bits>{0x3da31395, 0x40904f80, 0xc053f37c, 0x3f89615f}));
}

// Entry (i, j) of H is -1 where i and j share an odd number of bits. Row i of unit vectors, two blocks.
TEST(Rotation, IsTheSylvesterMatrix) {
  for (const std::size_t block : {512, 1024, 2048, 4096}) {
    const auto factor = 1.0F / std::sqrt(static_cast<float>(block));
    for (const std::size_t one : {std::size_t{0}, std::size_t{5}, block - 1, block + 77}) {
      std::vector<float> z(2 * block);
      z[one] = 1;
      rotate_row(z, {static_cast<std::int64_t>(block), nullptr});
      for (std::size_t k = 0; k < z.size(); ++k) {
        const bool here = k / block == one / block;
        const float sign = std::popcount(k % block & one % block) % 2 == 1 ? -1.0F : 1.0F;
        ASSERT_EQ(z[k], here ? sign * factor : 0.0F) << block << ", " << one << ", " << k;
      }
    }
  }
}

TEST(Rotation, Refuses) {
  std::vector<std::int8_t> signs(2048, 1);
  EXPECT_NO_THROW(check(Rotation{1024, signs.data()}, 2048));
  for (const std::int64_t block : {0, 1, 256, 768, 8192}) {
    EXPECT_THROW(check(Rotation{block, nullptr}, 24576), Error) << block;
  }
  EXPECT_THROW(check(Rotation{1024, nullptr}, 1536), Error);
  signs[700] = 0;
  try {
    check(Rotation{512, signs.data()}, 2048);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("input 700 is 0, wanted +1 or -1"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace trit::test

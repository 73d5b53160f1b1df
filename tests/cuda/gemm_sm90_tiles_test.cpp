// SPDX-License-Identifier: MIT
//
// What the Hopper GEMM decides on the host: tiles, splits, the order of tiles.
#include <cstdint>
#include <random>
#include <string>

#include "cpu/support.h"
#include "cuda/gemm_sm90.h"
#include "cuda/gemm_sm90_parameters.h"

namespace trit::test {
namespace {

// The choices that won when kernels of this form were measured at these shapes, 132 multiprocessors.
TEST(GemmSm90Tiles, ChoicesOfMeasuredShapes) {
  const auto chosen = [](std::int64_t m, std::int64_t n, std::int64_t k) {
    const cuda::GemmSm90Choice choice = cuda::choose_gemm_sm90(m, n, k, 132);
    return std::to_string(choice.tile.rows) + "x" + std::to_string(choice.tile.tokens);
  };
  EXPECT_EQ(chosen(1024, 2560, 2560), "256x80");
  EXPECT_EQ(chosen(1024, 6912, 2560), "128x160");
  EXPECT_EQ(chosen(1024, 2560, 6912), "256x80");
  EXPECT_EQ(chosen(1024, 14336, 4096), "256x96");
  EXPECT_EQ(chosen(1024, 4096, 14336), "256x128");
  EXPECT_EQ(chosen(4096, 6912, 2560), "256x128");
  EXPECT_EQ(chosen(4096, 2560, 6912), "256x80");
  EXPECT_EQ(chosen(4096, 4096, 4096), "256x128");
  EXPECT_EQ(chosen(4096, 8192, 8192), "256x128");
  EXPECT_EQ(chosen(4096, 28672, 8192), "256x128");
}

TEST(GemmSm90Tiles, EveryShapeHasAChoice) {
  std::mt19937_64 random(run_seed());
  for (int i = 0; i < 20000; ++i) {
    const auto uniform = [&](std::int64_t high) {
      return std::uniform_int_distribution<std::int64_t>(1, high)(random);
    };
    const std::int64_t k = uniform(i % 2 == 0 ? 1000 : cuda::kMaxGemmSm90Inputs);
    const cuda::GemmSm90Choice choice = cuda::choose_gemm_sm90(uniform(20000), uniform(40000), k, 132);
    ASSERT_GE(choice.split, 1);
    ASSERT_LE(choice.split, cuda::largest_split(choice.tile));
    ASSERT_TRUE(choice.split == 1 || choice.split <= (k + 255) / 256) << "a block without a step";
  }
}

TEST(GemmSm90Tiles, FastDivider) {
  std::mt19937_64 random(run_seed());
  for (int i = 0; i < 200000; ++i) {
    const auto divisor =
        static_cast<std::uint32_t>(random() >> (33 + random() % 31)) + (i % 2 == 0 ? 1U : 0U);
    const auto n = static_cast<std::uint32_t>(random() >> (33 + random() % 20));
    if (divisor != 0 && divisor <= INT32_MAX) {
      const cuda::FastDivider by = cuda::FastDivider::of(divisor);
      ASSERT_EQ((std::uint64_t{n} * by.multiplier) >> by.shift, n / divisor) << n << " / " << divisor;
      ASSERT_EQ((std::uint64_t{INT32_MAX} * by.multiplier) >> by.shift, INT32_MAX / divisor) << divisor;
    }
  }
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// What the Hopper GEMM decides on the host: tiles, splits, the order of tiles.
#include <cstdint>
#include <random>
#include <string>

#include "cpu/support.h"
#include "cuda/gemm_sm90/parameters.h"
#include "cuda/gemm_sm90/tiles.h"

namespace trit::test {
namespace {

// The fastest of all tiles and splits at these shapes on an H200 (bench_cuda --tune).
TEST(GemmSm90Tiles, ChoicesOfMeasuredShapes) {
  const auto chosen = [](std::int64_t m, std::int64_t n, std::int64_t k) {
    const cuda::GemmSm90Choice choice = cuda::choose_gemm_sm90(m, n, k, 132);
    return std::string(choice.tile.kernel == cuda::GemmSm90Kernel::split ? "split " : "persistent ") +
           std::to_string(choice.tile.rows) + "x" + std::to_string(choice.tile.tokens) + " / " +
           std::to_string(choice.split);
  };
  EXPECT_EQ(chosen(16, 2560, 2560), "split 128x32 / 5");
  EXPECT_EQ(chosen(32, 14336, 4096), "split 256x32 / 2");
  EXPECT_EQ(chosen(64, 14336, 4096), "persistent 128x64 / 1");
  EXPECT_EQ(chosen(64, 8192, 8192), "split 128x64 / 2");
  EXPECT_EQ(chosen(128, 2560, 2560), "split 128x64 / 2");
  EXPECT_EQ(chosen(128, 6912, 2560), "persistent 128x64 / 1");
  EXPECT_EQ(chosen(128, 14336, 4096), "persistent 128x128 / 1");
  EXPECT_EQ(chosen(256, 2560, 6912), "split 128x96 / 2");
  EXPECT_EQ(chosen(256, 8192, 8192), "persistent 128x128 / 1");
  EXPECT_EQ(chosen(768, 1024, 8192), "split 128x96 / 2");
  EXPECT_EQ(chosen(1024, 2560, 2560), "persistent 256x80 / 1");
  EXPECT_EQ(chosen(1024, 6912, 2560), "persistent 128x160 / 1");
  EXPECT_EQ(chosen(1024, 14336, 4096), "persistent 128x128 / 1");
  EXPECT_EQ(chosen(4096, 2560, 2560), "persistent 256x112 / 1");
  EXPECT_EQ(chosen(4096, 4096, 4096), "persistent 256x128 / 1");
  EXPECT_EQ(chosen(4096, 28672, 8192), "persistent 256x128 / 1");
  EXPECT_EQ(chosen(16384, 4096, 14336), "persistent 256x112 / 1");
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

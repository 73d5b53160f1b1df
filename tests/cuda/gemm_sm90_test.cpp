// SPDX-License-Identifier: MIT
//
// The Hopper GEMM, on the CPU its own source run thread by thread by the emulator, against plain sums: every
// tile of the table, tails in M, N and K, more steps than stages, several tiles per block, every split, every
// output type. Bits.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "cuda/gemm_sm90/gemm.h"
#include "cuda/gemm_sm90_problem.h"
#include "cuda/support.h"

namespace trit::test {
namespace {

using cuda::gemm_sm90;
using cuda::GemmSm90;
using cuda::GemmSm90Kernel;
using cuda::GemmSm90Tile;
using cuda::kGemmSm90Splits;
using cuda::kGemmSm90Tiles;
using cuda::largest_split;

class GemmSm90Test : public CudaTest {
 protected:
  void SetUp() override {
    const int found = largest_device().compute_capability;
    if (found != 90) {
      GTEST_SKIP() << "the kernel is for compute capability 9.0; this GPU has " << found / 10 << "."
                   << found % 10;
    }
  }

  void check(Problem& problem, const GemmSm90Tile& tile, std::int32_t split, const std::string& what) {
    // Two blocks: the persistent kernel takes several tiles with each.
    ASSERT_NO_THROW(gemm_sm90(problem.args(), tile, split, 2, nullptr)) << what;
    ASSERT_EQ(problem.difference(), "")
        << what << ", tile " << tile.rows << " x " << tile.tokens << ", split " << split;
    ++cases_;
  }

  // Four orders of threads and copies.
  void check_all_policies(const Shape& shape, const GemmSm90Tile& tile, std::int32_t split) {
    Problem problem(shape, random_);
    for (int i = 0; i < 4; ++i) {
      use_policy(i);
      check(problem, tile, split, text_of(shape) + ", policy " + std::to_string(i));
    }
  }
};

constexpr std::int64_t kMoreStepsThanStages = 128 * 17 + 77;  // the smallest tile has 17 stages of 128 inputs

// Two row tiles and three token tiles, both with tails, taken by two blocks; the ring wraps within a tile and
// goes on from one tile to the next.
TEST_F(GemmSm90Test, EveryPersistentTile) {
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    if (tile.kernel == GemmSm90Kernel::persistent) {
      check_all_policies({.tokens = 2 * tile.tokens + 5,
                          .out_features = tile.rows + 67,
                          .in_features = tile.rows * tile.tokens >= 256 * 96 ? 1001 : kMoreStepsThanStages},
                         tile, 1);
    }
  }
}

TEST_F(GemmSm90Test, EverySplitTile) {
  for (const GemmSm90Tile& tile : kGemmSm90Tiles) {
    if (tile.kernel == GemmSm90Kernel::split) {
      for (const std::int32_t split : kGemmSm90Splits) {
        if (split > largest_split(tile)) {
          break;
        }
        check_all_policies({.tokens = tile.tokens + 3,
                            .out_features = tile.rows + 1,
                            .in_features = split == 1 ? 256 * 14 + 19 : 256 * 2 * split + 131,
                            .y_type = split % 2 == 0 ? DataType::float32 : DataType::float16},
                           tile, split);
      }
    }
  }
}

TEST_F(GemmSm90Test, EveryOutput) {
  for (const GemmSm90Tile& tile : {kGemmSm90Tiles[8], kGemmSm90Tiles[12]}) {
    for (const DataType type : {DataType::float32, DataType::bfloat16, DataType::float16}) {
      for (const bool bias : {false, true}) {
        for (const bool scale_per_row : {false, true}) {
          for (const std::int64_t gap : {0, 1, 8}) {
            const Shape shape{.tokens = 37,
                              .out_features = 139,
                              .in_features = 200,
                              .y_type = type,
                              .bias = bias,
                              .scale_per_row = scale_per_row,
                              .y_gap = gap,
                              .programmatic = bias};
            Problem problem(shape, random_);
            check(problem, tile, 1, text_of(shape));
          }
        }
      }
    }
  }
}

TEST_F(GemmSm90Test, OddShapes) {
  for (int i = 0; i < 60 && !HasFatalFailure(); ++i) {
    const auto& tile = kGemmSm90Tiles[static_cast<std::size_t>(i) % kGemmSm90Tiles.size()];
    const Shape shape{.tokens = uniform(1, i % 5 == 0 ? 3 : 140),
                      .out_features = uniform(1, i % 7 == 0 ? 9 : 300),
                      .in_features = uniform(1, i % 3 == 0 ? 40 : 700),
                      .y_type = static_cast<DataType>(uniform(0, 2)),
                      .bias = uniform(0, 1) == 0,
                      .scale_per_row = uniform(0, 1) == 0,
                      .y_gap = uniform(0, 2) * 4};
    const std::int64_t steps = (shape.in_features + 255) / 256;
    check_all_policies(
        shape, tile,
        static_cast<std::int32_t>(uniform(1, std::min<std::int64_t>(steps, largest_split(tile)))));
  }
}

// Through the one entry for all products, which takes this kernel on compute capability 9.0 from 17 tokens
// on, with the tile and the split that it chooses itself.
TEST_F(GemmSm90Test, ThroughDispatch) {
  for (const std::int64_t tokens : {17, 33, 100, 700}) {
    const Shape shape{.tokens = tokens, .out_features = 200, .in_features = 900, .y_type = DataType::float32};
    EXPECT_EQ(cuda::product_workspace_bytes(largest_device(), tokens, shape.out_features, shape.in_features),
              0U);
    cuda::Product args{};
    Problem problem(shape, random_);
    const GemmSm90 gemm = problem.args();
    args.weights = gemm.weights;
    args.out_features = gemm.out_features;
    args.in_features = gemm.in_features;
    args.q = gemm.q;
    args.row_scale = gemm.token_scales;
    args.tokens = gemm.tokens;
    args.scale = gemm.row_scales;
    args.granularity = ScaleGranularity::row;
    args.bias = gemm.bias;
    args.y_type = gemm.y_type;
    args.y = gemm.y;
    cuda::product(largest_device(), args, nullptr);
    ASSERT_EQ(problem.difference(), "") << text_of(shape);
    ++cases_;
  }
}

// |sum| = 128 K at the largest K: 64 times that is 2^31 - 8192.
TEST_F(GemmSm90Test, LargestSums) {
  for (const GemmSm90Tile& tile : {kGemmSm90Tiles[10], kGemmSm90Tiles[11]}) {
    const Shape shape{
        .tokens = 2, .out_features = 2, .in_features = cuda::kMaxGemmSm90Inputs, .y_type = DataType::float32};
    Problem problem(shape, random_, Problem::Codes::largest);
    check(problem, tile, largest_split(tile), text_of(shape));
  }
}

TEST_F(GemmSm90Test, ScalesThatAreNotNumbers) {
  for (const GemmSm90Tile& tile : {kGemmSm90Tiles[10], kGemmSm90Tiles[11]}) {
    for (const DataType type : {DataType::float32, DataType::bfloat16, DataType::float16}) {
      const Shape shape{.tokens = 20, .out_features = 70, .in_features = 130, .y_type = type};
      Problem problem(shape, random_);
      problem.set_token_scale(3, std::numeric_limits<float>::quiet_NaN());
      problem.set_token_scale(4, std::numeric_limits<float>::infinity());
      problem.set_token_scale(5, 0.0F);
      problem.set_token_scale(6, std::numeric_limits<float>::denorm_min());
      problem.set_token_scale(7, 3e38F);
      check(problem, tile, 1, text_of(shape));
    }
  }
}

TEST_F(GemmSm90Test, NoTokens) {
  GemmSm90 args;
  args.out_features = 5;
  args.in_features = 5;
  args.q_stride = 16;
  args.y_stride = 5;
  gemm_sm90(args, 132, nullptr);
}

TEST_F(GemmSm90Test, Refusals) {
  const Shape shape{.tokens = 4, .out_features = 8, .in_features = 32};
  Problem problem(shape, random_);
  const auto message = [&](auto change) -> std::string {
    GemmSm90 args = problem.args();
    change(args);
    try {
      gemm_sm90(args, 132, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(message([](GemmSm90& a) { a.in_features = a.q_stride = 262144; }).find("262143"),
            std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.in_features = 0; }).find("K = 0"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.out_features = 0; }).find("N = 0"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.tokens = -1; }).find("M = -1"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.q_stride = 40; }).find("40 bytes apart"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.q_stride = 16; }).find("less than a row"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.y_stride = 7; }).find("less than a row"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.q += 1; }).find("multiple of 16"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.weights += 8; }).find("weights"), std::string::npos);
  EXPECT_NE(message([](GemmSm90& a) { a.y = static_cast<char*>(a.y) + 1; }).find("aligned"),
            std::string::npos);
  EXPECT_THROW(gemm_sm90(problem.args(), kGemmSm90Tiles[12], 2, 132, nullptr), Error);  // K has one step
  EXPECT_THROW(gemm_sm90(problem.args(), kGemmSm90Tiles[0], 2, 132, nullptr), Error);
  EXPECT_THROW(gemm_sm90(problem.args(), {GemmSm90Kernel::split, 128, 48, ""}, 1, 132, nullptr), Error);
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// The Hopper GEMM, on the CPU its own source run thread by thread by the emulator, against plain sums: every
// tile of the table, tails in M, N and K, more steps than stages, several tiles per block, every split, every
// output type. Bits.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "cuda/gemm_sm90/tiles.h"
#include "cuda/gemm_sm90_problem.h"
#include "cuda/plan.h"
#include "cuda/support.h"

namespace trit::test {
namespace {

using cuda::GemmSm90Kernel;
using cuda::GemmSm90Plan;
using cuda::GemmSm90Tile;
using cuda::kGemmSm90Splits;
using cuda::kGemmSm90Tiles;
using cuda::largest_split;

GemmSm90Plan plan_of(const GemmSm90Tile& tile, std::int32_t split) {
  return {tile.kernel == GemmSm90Kernel::persistent, tile.rows, tile.tokens, split};
}

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
    cuda::Device device = largest_device();
    device.multiprocessors = 2;
    ASSERT_NO_THROW(cuda::product(device, plan_of(tile, split), problem.args(), nullptr)) << what;
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
          // Rows of y that the copy engine can store, rows that it cannot, and a y that is not aligned.
          for (const auto& [rows, offset] : {std::pair{136, 0}, std::pair{139, 0}, std::pair{136, 1}}) {
            const Shape shape{.tokens = 37,
                              .out_features = rows,
                              .in_features = 200,
                              .y_type = type,
                              .bias = bias,
                              .scale_per_row = scale_per_row,
                              .y_offset = offset,
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
                      .y_offset = uniform(0, 2) * 4};
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
    Problem problem(shape, random_);
    cuda::product(largest_device(), problem.args(), nullptr);
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
  cuda::product(largest_device(), plan_of(kGemmSm90Tiles[0], 1),
                {.weights = nullptr,
                 .out_features = 5,
                 .in_features = 5,
                 .q = nullptr,
                 .token_scale = nullptr,
                 .weight_scale = nullptr},
                nullptr);
}

TEST_F(GemmSm90Test, Refusals) {
  const Shape shape{.tokens = 4, .out_features = 8, .in_features = 32};
  Problem problem(shape, random_);
  const auto message = [&](const GemmSm90Plan& plan, auto change) -> std::string {
    cuda::Product args = problem.args();
    change(args);
    try {
      cuda::product(largest_device(), plan, args, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const auto refused = [&](const GemmSm90Plan& plan, auto change) {
    return message(plan, change).find("cannot compute") != std::string::npos;
  };
  const auto nothing = [](cuda::Product&) {};
  const GemmSm90Plan good = plan_of(kGemmSm90Tiles[0], 1);
  EXPECT_EQ(message(good, nothing), "no error");
  EXPECT_TRUE(refused(good, [](cuda::Product& a) { a.in_features = cuda::kMaxGemmSm90Inputs + 1; }));
  EXPECT_TRUE(refused(good, [](cuda::Product& a) { a.out_features = (1 << 30) + 1; }));
  EXPECT_NE(message(good, [](cuda::Product& a) { a.q += 1; }).find("q is at an address"), std::string::npos);
  EXPECT_NE(message(good, [](cuda::Product& a) { a.weights += 8; }).find("weights is at an address"),
            std::string::npos);
  EXPECT_NE(message(good, [](cuda::Product& a) { a.y = static_cast<char*>(a.y) + 1; }).find("y is at an"),
            std::string::npos);
  EXPECT_NE(message(good,
                    [](cuda::Product& a) {
                      a.tokens = 1 << 30;
                      a.out_features = 1 << 30;
                    })
                .find("too many tiles"),
            std::string::npos);
  EXPECT_TRUE(refused(plan_of(kGemmSm90Tiles[12], 2), nothing)) << "K has one step";
  EXPECT_TRUE(refused(plan_of(kGemmSm90Tiles[0], 2), nothing));
  EXPECT_TRUE(refused({false, 128, 48, 1}, nothing));
}

}  // namespace
}  // namespace trit::test

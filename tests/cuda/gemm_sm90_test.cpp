// SPDX-License-Identifier: MIT
//
// The Hopper GEMM on the CPU, its own source run thread by thread by the emulator, against plain sums: every
// tile of the table, tails in M, N and K, more steps than stages, several tiles per block, every split, every
// output type. Bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cuda/emulator/emulator.h"
#include "cuda/emulator/guarded_memory.h"
#include "cuda/gemm_sm90.h"
#include "cuda/gemm_sm90_parameters.h"
#include "trit/error.h"
#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::cuda {
namespace {

using emulator::DeviceArray;

std::uint64_t run_seed() {
  static const std::uint64_t seed = [] {
    const char* text = std::getenv("TRIT_TEST_SEED");
    const std::uint64_t value = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
    std::printf("TRIT_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return seed;
}

struct Shape {
  std::int64_t tokens;
  std::int64_t out_features;
  std::int64_t in_features;
  DataType y_type = DataType::bfloat16;
  bool bias = true;
  bool scale_per_row = true;
  std::int64_t y_gap = 0;  // elements between rows of y, beyond a multiple of 8
  bool programmatic = false;
};

std::string text_of(const Shape& shape) {
  return "M = " + std::to_string(shape.tokens) + ", N = " + std::to_string(shape.out_features) +
         ", K = " + std::to_string(shape.in_features) + ", " + std::string(name_of(shape.y_type)) +
         (shape.bias ? ", bias" : "") + (shape.scale_per_row ? ", scale per row" : "");
}

// One product: inputs in guarded memory, and the outputs that the contract asks for.
class Problem {
 public:
  enum class Codes : std::uint8_t { random, largest };  // largest: every sum is +-128 K

  Problem(const Shape& shape, std::mt19937_64& random, Codes codes = Codes::random)
      : shape_(shape),
        q_stride_((shape.in_features + 15) / 16 * 16),
        y_stride_((shape.out_features + 7) / 8 * 8 + shape.y_gap),
        t_(static_cast<std::size_t>(shape.out_features * shape.in_features)),
        q_(static_cast<std::size_t>(shape.tokens * q_stride_)),
        token_scales_(static_cast<std::size_t>(shape.tokens)),
        row_scales_(static_cast<std::size_t>(shape.scale_per_row ? shape.out_features : 1)),
        bias_(static_cast<std::size_t>(shape.out_features)),
        weights_(static_cast<std::size_t>((shape.out_features + 63) / 64 * ((shape.in_features + 127) / 128) *
                                          2048)),
        y_(static_cast<std::size_t>(shape.tokens * y_stride_) * (shape.y_type == DataType::float32 ? 4 : 2)) {
    std::uniform_int_distribution<int> trit(-1, 1);
    std::uniform_int_distribution<int> code(-128, 127);
    std::uniform_real_distribution<float> real(-2.0F, 2.0F);
    for (std::int64_t row = 0; row < shape.out_features; ++row) {
      for (std::int64_t k = 0; k < shape.in_features; ++k) {
        t_[static_cast<std::size_t>(row * shape.in_features + k)] =
            static_cast<std::int8_t>(codes == Codes::random ? trit(random) : row % 2 * 2 - 1);
      }
    }
    // What lies behind in_features is anything: the kernel must not use it.
    for (std::int8_t& q : q_.span()) {
      q = static_cast<std::int8_t>(codes == Codes::random ? code(random) : -128);
    }
    for (float& s : token_scales_.span()) {
      s = real(random);
    }
    for (float& beta : row_scales_.span()) {
      beta = real(random);
    }
    for (float& b : bias_.span()) {
      b = real(random);
    }
    pack_weights();
  }

  void set_token_scale(std::int64_t token, float scale) {
    token_scales_[static_cast<std::size_t>(token)] = scale;
  }

  GemmSm90 args() const {
    GemmSm90 args;
    args.q = q_.data();
    args.q_stride = q_stride_;
    args.token_scales = token_scales_.data();
    args.weights = weights_.data();
    args.row_scales = row_scales_.data();
    args.scale_per_row = shape_.scale_per_row;
    args.bias = shape_.bias ? bias_.data() : nullptr;
    args.y_type = shape_.y_type;
    args.y = y_.data();
    args.y_stride = y_stride_;
    args.tokens = shape_.tokens;
    args.out_features = shape_.out_features;
    args.in_features = shape_.in_features;
    args.programmatic = shape_.programmatic;
    return args;
  }

  void poison() { std::memset(y_.data(), 0xA5, y_.size()); }

  // "" or the first difference.
  std::string difference() {
    if (expected_.empty()) {
      expect();
    }
    if (!y_.intact()) {
      return "wrote outside of y";
    }
    for (std::int64_t token = 0; token < shape_.tokens; ++token) {
      for (std::int64_t row = 0; row < y_stride_; ++row) {
        const std::uint32_t found = output(token, row);
        const bool inside = row < shape_.out_features;
        const std::uint32_t wanted =
            inside ? expected_[static_cast<std::size_t>(token * shape_.out_features + row)]
                   : (shape_.y_type == DataType::float32 ? 0xA5A5A5A5U : 0xA5A5U);
        if (found != wanted && !(inside && is_nan(found) && is_nan(wanted))) {
          return "token " + std::to_string(token) + ", row " + std::to_string(row) +
                 (inside ? "" : " (outside)") + ": found bits " + std::to_string(found) + ", wanted " +
                 std::to_string(wanted);
        }
      }
    }
    return {};
  }

 private:
  // design: tile of 64 rows x 128 inputs = 4 strips of 16 rows x 32 lanes x 4 words, a word per 32 inputs.
  void pack_weights() {
    std::memset(weights_.data(), 0, weights_.size());
    const std::int64_t k_tiles = (shape_.in_features + 127) / 128;
    for (std::int64_t row = 0; row < shape_.out_features; ++row) {
      for (std::int64_t k = 0; k < shape_.in_features; ++k) {
        const std::int64_t lane = row % 8 * 4 + k % 16 / 4;
        const std::int64_t fragment_register = row % 16 / 8 + k % 32 / 16 * 2;
        const std::int64_t byte = (row / 64 * k_tiles + k / 128) * 2048 + row % 64 / 16 * 512 + lane * 16 +
                                  k % 128 / 32 * 4 + k % 4;
        const auto code =
            static_cast<std::uint8_t>(t_[static_cast<std::size_t>(row * shape_.in_features + k)] & 3);
        weights_[static_cast<std::size_t>(byte)] = static_cast<std::uint8_t>(
            weights_[static_cast<std::size_t>(byte)] | code << (6 - 2 * fragment_register));
      }
    }
  }

  void expect() {
    for (std::int64_t token = 0; token < shape_.tokens; ++token) {
      const std::int8_t* q = q_.data() + token * q_stride_;
      for (std::int64_t row = 0; row < shape_.out_features; ++row) {
        const std::int8_t* t = t_.data() + row * shape_.in_features;
        std::int32_t acc = 0;
        for (std::int64_t k = 0; k < shape_.in_features; ++k) {
          acc += q[k] * t[k];
        }
        const auto r = static_cast<std::size_t>(row);
        const float y =
            epilogue(acc, token_scales_[static_cast<std::size_t>(token)],
                     row_scales_[shape_.scale_per_row ? r : 0], shape_.bias ? &bias_[r] : nullptr);
        expected_.push_back(shape_.y_type == DataType::float32    ? std::bit_cast<std::uint32_t>(y)
                            : shape_.y_type == DataType::bfloat16 ? std::uint32_t{float_to_bfloat16(y)}
                                                                  : std::uint32_t{float_to_float16(y)});
      }
    }
  }

  std::uint32_t output(std::int64_t token, std::int64_t row) const {
    const auto index = static_cast<std::size_t>(token * y_stride_ + row);
    std::uint32_t bits = 0;
    if (shape_.y_type == DataType::float32) {
      std::memcpy(&bits, y_.data() + 4 * index, 4);
    } else {
      std::memcpy(&bits, y_.data() + 2 * index, 2);
    }
    return bits;
  }
  bool is_nan(std::uint32_t bits) const {
    switch (shape_.y_type) {
      case DataType::float32:
        return (bits & 0x7FFFFFFFU) > 0x7F800000U;
      case DataType::bfloat16:
        return (bits & 0x7FFFU) > 0x7F80U;
      case DataType::float16:
        return (bits & 0x7FFFU) > 0x7C00U;
    }
    return false;
  }

  Shape shape_;
  std::int64_t q_stride_;
  std::int64_t y_stride_;
  std::vector<std::int8_t> t_;
  DeviceArray<std::int8_t> q_;
  DeviceArray<float> token_scales_;
  DeviceArray<float> row_scales_;
  DeviceArray<float> bias_;
  DeviceArray<std::uint8_t> weights_;
  DeviceArray<std::uint8_t> y_;
  std::vector<std::uint32_t> expected_;
};

class GemmSm90Test : public testing::Test {
 protected:
  GemmSm90Test() : random_(run_seed()) {}

  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  void check(Problem& problem, const GemmSm90Tile& tile, std::int32_t split, const std::string& what) {
    problem.poison();
    // Two blocks: the persistent kernel takes several tiles with each.
    ASSERT_NO_THROW(gemm_sm90(problem.args(), tile, split, 2, nullptr)) << what;
    ASSERT_EQ(problem.difference(), "")
        << what << ", tile " << tile.rows << " x " << tile.tokens << ", split " << split;
  }

  void check_all_policies(const Shape& shape, const GemmSm90Tile& tile, std::int32_t split) {
    Problem problem(shape, random_);
    for (const emulator::Policy& policy : emulator::all_policies()) {
      emulator::set_policy(policy);
      check(problem, tile, split, text_of(shape) + ", policy " + std::to_string(policy.seed));
    }
  }

  std::mt19937_64 random_;
};

constexpr std::int64_t kMoreStepsThanStages = 128 * 17 + 77;  // the smallest tile has 15 stages of 128 inputs

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
  const Device h200{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 227 * 1024};
  for (const std::int64_t tokens : {17, 33, 100, 700}) {
    const Shape shape{.tokens = tokens, .out_features = 200, .in_features = 900, .y_type = DataType::float32};
    EXPECT_EQ(product_workspace_bytes(h200, tokens, shape.out_features, shape.in_features), 0U);
    Product args{};
    Problem problem(shape, random_);
    problem.poison();
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
    product(h200, args, nullptr);
    ASSERT_EQ(problem.difference(), "") << text_of(shape);
  }
}

// |sum| = 128 K at the largest K: 64 times that is 2^31 - 8192.
TEST_F(GemmSm90Test, LargestSums) {
  for (const GemmSm90Tile& tile : {kGemmSm90Tiles[10], kGemmSm90Tiles[11]}) {
    const Shape shape{
        .tokens = 2, .out_features = 2, .in_features = kMaxGemmSm90Inputs, .y_type = DataType::float32};
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
  const Problem problem(shape, random_);
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

// The choices that won when kernels of this form were measured at these shapes, 132 multiprocessors.
TEST(GemmSm90Tiles, ChoicesOfMeasuredShapes) {
  const auto chosen = [](std::int64_t m, std::int64_t n, std::int64_t k) {
    const GemmSm90Choice choice = choose_gemm_sm90(m, n, k, 132);
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
    const std::int64_t k = uniform(i % 2 == 0 ? 1000 : kMaxGemmSm90Inputs);
    const GemmSm90Choice choice = choose_gemm_sm90(uniform(20000), uniform(40000), k, 132);
    ASSERT_GE(choice.split, 1);
    ASSERT_LE(choice.split, largest_split(choice.tile));
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
      const FastDivider by = FastDivider::of(divisor);
      ASSERT_EQ((std::uint64_t{n} * by.multiplier) >> by.shift, n / divisor) << n << " / " << divisor;
      ASSERT_EQ((std::uint64_t{INT32_MAX} * by.multiplier) >> by.shift, INT32_MAX / divisor) << divisor;
    }
  }
}

}  // namespace
}  // namespace trit::cuda

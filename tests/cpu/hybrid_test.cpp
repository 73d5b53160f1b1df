// SPDX-License-Identifier: MIT
//
// The hybrid kernel (half of the rows by dot products, half by lookups), forced on by TRIT_HYBRID, against
// the scalar backend bit for bit; how a product is cut into blocks; the choice between it and product tiles.
#include <algorithm>
#include <numeric>
#include <optional>

#include "cpu/avx512_vnni/hybrid/hybrid.h"
#include "cpu/support.h"
#include "environment_variable.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class HybridVariable : public EnvironmentVariable {
 public:
  explicit HybridVariable(const char* value) : EnvironmentVariable("TRIT_HYBRID", value) {}
};

std::vector<RowAndLayout> layouts_with_hybrid() {
  std::vector<RowAndLayout> layouts = available_layouts();
  std::erase_if(layouts, [](const RowAndLayout& layout) { return layout.layout->product_part == nullptr; });
  return layouts;
}

class HybridTest : public LayoutTest {
 protected:
  // q of one kind a token: uniform, or all of one extreme.
  QuantizedBatch random_batch(std::int64_t tokens, std::int64_t k) {
    QuantizedBatch batch(tokens, k);
    for (std::int64_t token = 0; token < tokens; ++token) {
      const std::int64_t kind = uniform(0, 5);
      fill(batch, token, k, kind == 0 ? std::optional(127) : kind == 1 ? std::optional(-128) : std::nullopt);
    }
    return batch;
  }
  void fill(QuantizedBatch& batch, std::int64_t token, std::int64_t k, std::optional<int> value) {
    const std::int64_t padded = padded_in_features(k);
    std::int8_t* row = batch.q.data() + token * padded;
    std::generate(row, row + k,
                  [&] { return static_cast<std::int8_t>(value ? *value : uniform(-128, 127)); });
    batch.q_sum[static_cast<std::size_t>(token)] = std::accumulate(row, row + padded, 0);
  }
  // Row r of weights is all of r % 3 - 1.
  static TernaryMatrix constant_rows(std::int64_t rows, std::int64_t columns) {
    TernaryMatrix matrix{rows, columns, {}, {1.0F}};
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(columns));
    matrix.codes.resize(static_cast<std::size_t>(rows) * row_bytes);
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::vector<std::int8_t> t(static_cast<std::size_t>(columns),
                                       static_cast<std::int8_t>(row % 3 - 1));
      pack_row(t, std::span(matrix.codes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes));
    }
    return matrix;
  }

  std::vector<float> run(const CpuKernels& kernels, PanelFormat format, const TernaryMatrix& matrix,
                         const QuantizedBatch& batch, const std::vector<float>& bias) {
    std::vector<float> y(static_cast<std::size_t>(batch.tokens * matrix.out_features), -7.5F);
    PackedLinear(kernels, *threads, matrix.view(), format)
        .product(*threads, batch.rows(), bias.data(), DataType::float32, y.data());
    return y;
  }
  void compare(const TernaryMatrix& matrix, const QuantizedBatch& batch) {
    std::vector<float> bias(static_cast<std::size_t>(matrix.out_features));
    std::generate(bias.begin(), bias.end(), [&] { return normal(); });
    const std::vector<float> wanted =
        run(cpu_kernels_for(Backend::scalar), PanelFormat::automatic, matrix, batch, bias);
    const HybridVariable on("on");
    ASSERT_TRUE(same_bits(run(kernels(), layout().format, matrix, batch, bias), wanted))
        << batch.tokens << " tokens, " << matrix.out_features << " x " << matrix.in_features;
    ++cases_;
  }
  void compare(std::int64_t tokens, std::int64_t n, std::int64_t k) {
    if (!HasFatalFailure()) {
      compare(random_matrix(n, k, uniform(0, 1) == 0), random_batch(tokens, k));
    }
  }

  std::unique_ptr<Parallel> threads = make_parallel(3);
};

TEST_P(HybridTest, EveryShortRow) {
  for (std::int64_t k = 1; k <= 200; ++k) {
    compare(uniform(4, 9), uniform(1, 4) * 64 + uniform(0, 70), k);
  }
}

// A unit is 36 inputs, a block of k 216.
TEST_P(HybridTest, EdgesOfUnitsAndBlocksOfK) {
  for (const std::int64_t k : {215, 216, 217, 220, 251, 252, 253, 431, 432, 433, 648, 1027}) {
    compare(9, 130, k);
  }
}

TEST_P(HybridTest, EdgesOfRowsAndTokens) {
  for (const std::int64_t n : {1, 63, 64, 65, 127, 128, 129, 191, 192, 193, 500}) {
    for (const std::int64_t tokens : {1, 3, 4, 5, 127, 128, 129, 300}) {
      compare(tokens, n, uniform(1, 300));
    }
  }
}

TEST_P(HybridTest, LongRows) {
  compare(129, 500, 4096);
  compare(300, 129, 4097);
  compare(127, 127, 4097);
  compare(5, 129, 131072);  // the longest that a block takes
  compare(5, 129, 131073);
  compare(4, 128, 200003);
}

TEST_P(HybridTest, RandomShapes) {
  for (int i = 0; i < random_cases(300); ++i) {
    compare(uniform(1, 40), uniform(1, 400), uniform(1, i % 10 == 0 ? 3000 : 500));
  }
}

// All 127 or all -128 against all -1, 0 or +1. In one block of k, 216 inputs, the sum is +-27648 where a
// lookup adds up to 55296 in int16 and is brought back by the sum of q; at 131072 inputs the dot products'
// int32 sums wrap as well.
TEST_P(HybridTest, Extremes) {
  for (const std::int64_t k : {3, 36, 216, 217, 432, 4096, 131072}) {
    QuantizedBatch batch(6, k);
    for (std::int64_t token = 0; token < batch.tokens; ++token) {
      fill(batch, token, k, token % 2 == 0 ? 127 : -128);
    }
    compare(constant_rows(130, k), batch);
  }
}

TEST_P(HybridTest, EveryTriple) {
  // Row r has the 27 triples from r on, one in each place: all table entries in all places.
  constexpr std::int64_t kInputs = 432;
  TernaryMatrix matrix{128, kInputs, {}, {1.0F}};
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(kInputs));
  matrix.codes.resize(128 * row_bytes);
  for (std::int64_t row = 0; row < 128; ++row) {
    std::vector<std::int8_t> t(kInputs);
    for (std::int64_t k = 0; k < kInputs; ++k) {
      const std::int64_t triple = (k / 12 * 4 + k % 4 + row) % 27;
      const std::int64_t place = k / 4 % 3;
      t[static_cast<std::size_t>(k)] = static_cast<std::int8_t>((place == 0   ? triple
                                                                 : place == 1 ? triple / 3
                                                                              : triple / 9) %
                                                                    3 -
                                                                1);
    }
    pack_row(t, std::span(matrix.codes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes));
  }
  compare(matrix, random_batch(8, kInputs));
}

// That the comparisons above ran the hybrid kernel, and where.
TEST_P(HybridTest, TakesWholePairsAndGroups) {
  const auto taken = [&](const char* mode, std::int64_t tokens, std::int64_t n, std::int64_t k) {
    const HybridVariable variable(mode);
    const TernaryMatrix matrix = random_matrix(n, k, false);
    const QuantizedBatch batch = random_batch(tokens, k);
    const std::int64_t panels = (n + layout().panel_rows - 1) / layout().panel_rows;
    std::vector<std::uint8_t> weights(
        static_cast<std::size_t>(panels * padded_in_features(k) / 4 * layout().panel_bytes_per_4));
    std::vector<float> y(static_cast<std::size_t>(tokens * n));
    const DonePart part = layout().product_part(*threads, {.kernels = kernels(),
                                                           .layout = layout(),
                                                           .out_features = n,
                                                           .in_features = k,
                                                           .panels = weights.data(),
                                                           .weight_scale = matrix.scale.data(),
                                                           .weight_scale_per_row = false,
                                                           .x = batch.rows(),
                                                           .bias = nullptr,
                                                           .y_type = DataType::float32,
                                                           .y = y.data()});
    return std::pair(part.panels, part.tokens);
  };
  EXPECT_EQ(taken("on", 7, 200, 30), std::pair(std::int64_t{4}, std::int64_t{4}));
  EXPECT_EQ(taken("on", 129, 129, 30), std::pair(std::int64_t{2}, std::int64_t{128}));
  EXPECT_EQ(taken("on", 3, 200, 30), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(taken("on", 4, 64, 30), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(taken("on", 4, 128, 131073), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(taken("off", 128, 1024, 512), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(taken("auto", 127, 1024, 512), std::pair(std::int64_t{0}, std::int64_t{0}));
  const bool faster = avx512_vnni::hybrid::is_faster(kernels(), layout());
  std::printf("hybrid kernel on this CPU: %s\n", faster ? "faster, chosen" : "slower, not chosen");
  EXPECT_EQ(taken("auto", 128, 1024, 512).second, faster ? 128 : 0);
  try {
    taken("yes", 1, 1, 1);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "TRIT_HYBRID: unknown mode 'yes', wanted one of: auto, on, off");
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, HybridTest, testing::ValuesIn(layouts_with_hybrid()), layout_name);
// A machine without AVX-512 VNNI has no hybrid kernel: nothing to run there.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(HybridTest);

TEST(HybridGrid, BoundsBlocksAndKeepsThreadsBusy) {
  for (const std::int64_t pairs : {1, 2, 7, 20, 32, 54, 112, 400}) {
    for (const std::int64_t groups : {1, 2, 31, 32, 128, 1000}) {
      for (const std::int64_t threads : {1, 2, 3, 16, 96}) {
        const auto grid = avx512_vnni::hybrid::grid(pairs, groups, threads);
        ASSERT_GE(grid.rows, 1);
        ASSERT_LE(grid.rows, pairs);
        ASSERT_GE(grid.columns, 1);
        ASSERT_LE(grid.columns, groups);
        const std::int64_t high = (pairs + grid.rows - 1) / grid.rows;
        const std::int64_t wide = (groups + grid.columns - 1) / grid.columns;
        EXPECT_LE(high * wide, 512) << pairs << " x " << groups << ", " << threads << " threads";
        EXPECT_LE(high, 40);
        if (pairs * groups >= 16 * threads) {
          // No thread has more than twice its share.
          const std::int64_t rounds = (grid.rows * grid.columns + threads - 1) / threads;
          EXPECT_LE(rounds * high * wide * threads, 2 * pairs * groups)
              << pairs << " x " << groups << ", " << threads << " threads";
        }
      }
    }
  }
}

}  // namespace
}  // namespace trit::test

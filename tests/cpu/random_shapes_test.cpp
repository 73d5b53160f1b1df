// SPDX-License-Identifier: MIT
//
// Every layout of every backend against the scalar row, bit for bit: 100,000 random shapes, a tenth of them
// with the largest sums of one sign, and the ends of what 32-bit sums of codes can hold.
#include <algorithm>
#include <numeric>

#include "cpu/support.h"

namespace trit::test {
namespace {

const int kShapes = random_cases(100'000);

struct Shape {
  std::int64_t m, n, k;
};

std::string text_of(const Shape& shape) {
  return "M = " + std::to_string(shape.m) + ", N = " + std::to_string(shape.n) +
         ", K = " + std::to_string(shape.k);
}

class RandomShapes : public testing::Test {
 protected:
  RandomShapes() : random_(run_seed()) {
    for (const RowAndLayout& entry : available_layouts()) {
      if (entry.kernels->backend != Backend::scalar) {
        layouts_.push_back(entry);
      }
    }
    std::string names;
    for (const RowAndLayout& entry : layouts_) {
      names += " " + name(entry);
    }
    std::printf("layouts:%s\n", names.c_str());
  }

  static std::string name(const RowAndLayout& entry) {
    return std::string(name_of(entry.kernels->backend)) + "/" + std::string(name_of(entry.layout->format));
  }

  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  /// All weights `t` where it is -1 or +1, else random ones.
  TernaryMatrix weights(const Shape& shape, int t) {
    TernaryMatrix matrix{shape.n, shape.k, {}, {1.0F}};
    const std::int64_t row_bytes = packed_row_bytes(shape.k);
    matrix.codes.resize(static_cast<std::size_t>(shape.n * row_bytes));
    for (std::uint8_t& four : matrix.codes) {
      const auto low = t == 0 ? static_cast<unsigned>(random_()) & 0x55U : 0x55U;
      const auto high = t == 0 ? static_cast<unsigned>(random_()) : t < 0 ? 0xffU : 0U;
      four = static_cast<std::uint8_t>(low | (low & high) << 1U);
    }
    const auto last = static_cast<std::uint8_t>(0xffU >> (2 * (4 * row_bytes - shape.k)));
    for (std::int64_t row = 1; row <= shape.n; ++row) {
      matrix.codes[static_cast<std::size_t>(row * row_bytes - 1)] &= last;
    }
    return matrix;
  }
  /// All inputs `value` where it is not 0, else random ones.
  QuantizedBatch inputs(const Shape& shape, int value) {
    QuantizedBatch batch(shape.m, shape.k);
    const std::int64_t padded = padded_in_features(shape.k);
    for (std::int64_t token = 0; token < shape.m; ++token) {
      std::int8_t* q = batch.q.data() + token * padded;
      std::generate_n(q, shape.k, [&] {
        return static_cast<std::int8_t>(value == 0 ? static_cast<int>(random_()) : value);
      });
      batch.q_sum[static_cast<std::size_t>(token)] = std::accumulate(q, q + shape.k, 0);
    }
    return batch;
  }

  std::vector<float> product(const CpuKernels& kernels, PanelFormat format, const TernaryMatrix& matrix,
                             const QuantizedBatch& batch) {
    std::vector<float> y(static_cast<std::size_t>(batch.tokens * matrix.out_features), -7.5F);
    PackedLinear(kernels, *parallel_, matrix.view(), format)
        .product(*parallel_, batch.rows(), nullptr, DataType::float32, y.data());
    return y;
  }
  void compare(const RowAndLayout& entry, const Shape& shape, const TernaryMatrix& matrix,
               const QuantizedBatch& batch, const std::vector<float>& wanted) {
    ASSERT_TRUE(same_bits(product(*entry.kernels, entry.layout->format, matrix, batch), wanted))
        << name(entry) << ", " << text_of(shape);
    ++comparisons_;
  }

  std::mt19937_64 random_;
  std::vector<RowAndLayout> layouts_;
  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
  std::int64_t comparisons_ = 0;
};

TEST_F(RandomShapes, EqualTheScalarRow) {
  for (int i = 0; i < kShapes && !HasFatalFailure(); ++i) {
    const bool large = i % 16 == 0;
    const Shape shape{uniform(1, large ? 20 : 7), uniform(1, large ? 260 : 90), uniform(1, large ? 700 : 80)};
    const bool extreme = i % 10 == 0;
    constexpr std::array kInputs = {-128, -127, 127};
    const TernaryMatrix matrix = weights(shape, extreme ? (uniform(0, 1) == 0 ? -1 : 1) : 0);
    const QuantizedBatch batch =
        inputs(shape, extreme ? kInputs[static_cast<std::size_t>(uniform(0, 2))] : 0);
    const std::vector<float> wanted =
        product(cpu_kernels_for(Backend::scalar), PanelFormat::two_bit, matrix, batch);
    for (const RowAndLayout& entry : layouts_) {
      compare(entry, shape, matrix, batch, wanted);
    }
  }
  std::printf("%d shapes, %lld comparisons with the scalar row\n", kShapes,
              static_cast<long long>(comparisons_));
}

// Up to, at and beyond the longest range of k that a tile may sum, with the largest sums of either sign.
TEST_F(RandomShapes, EndsOfTheSums) {
  for (const RowAndLayout& entry : layouts_) {
    const std::int64_t limit = entry.layout->max_k;
    if (limit > 1'000'000) {
      continue;  // ProductTest.LargestK
    }
    for (const std::int64_t k : {limit - 5, limit, limit + 1, limit + 4, 2 * limit + 3}) {
      for (const int t : {-1, 1}) {
        for (const int value : {-128, 127}) {
          const Shape shape{2, entry.layout->panel_rows + 1, k};
          const TernaryMatrix matrix = weights(shape, t);
          const QuantizedBatch batch = inputs(shape, value);
          const std::vector<float> wanted(static_cast<std::size_t>(shape.m * shape.n),
                                          static_cast<float>(static_cast<std::int32_t>(t * value * k)));
          compare(entry, shape, matrix, batch, wanted);
        }
      }
    }
  }
  std::printf("%lld comparisons\n", static_cast<long long>(comparisons_));
}

}  // namespace
}  // namespace trit::test

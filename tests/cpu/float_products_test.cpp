// SPDX-License-Identifier: MIT
//
// The float products of a backward: exact where every sum is, within the bound of fp32 sums elsewhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "cpu/support.h"
#include "trit/format.h"
#include "trit/linear.h"

namespace trit::test {
namespace {

std::vector<const CpuKernels*> rows_with_float_products() {
  std::vector<const CpuKernels*> rows = available_rows();
  std::erase_if(rows, [](const CpuKernels* row) { return !has_float_products(*row); });
  return rows;
}

struct Problem {
  std::int64_t tokens, outputs, inputs;
  std::vector<float> grad;     // [tokens, outputs]
  std::vector<std::int8_t> t;  // [outputs, inputs]
  std::vector<float> beta;     // [1] or [outputs]
  std::vector<std::int8_t> q;  // [tokens, padded]
  std::vector<float> s;        // [tokens]
  std::vector<std::uint8_t> codes;

  float weighted(std::int64_t m, std::int64_t n) const {
    return grad[index(m * outputs + n)] * beta[index(beta.size() > 1 ? n : 0)];
  }
  float scaled(std::int64_t m, std::int64_t n) const { return grad[index(m * outputs + n)] * s[index(m)]; }
  std::int64_t weight(std::int64_t n, std::int64_t k) const { return t[index(n * inputs + k)]; }
  std::int64_t activation(std::int64_t m, std::int64_t k) const {
    return q[index(m * padded_in_features(inputs) + k)];
  }
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
};

struct Results {
  std::vector<float> dx, dw;
};

class FloatProducts : public testing::TestWithParam<const CpuKernels*> {
 protected:
  void SetUp() override {
    std::seed_seq sequence{run_seed()};
    random_.seed(sequence);
  }
  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  /// With integers of at most `largest`, or with normal numbers (0).
  Problem problem(std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, std::int64_t largest,
                  bool per_row) {
    Problem p{.tokens = tokens,
              .outputs = outputs,
              .inputs = inputs,
              .grad = {},
              .t = {},
              .beta = {},
              .q = {},
              .s = {},
              .codes = {}};
    std::normal_distribution<float> normal;
    p.grad.resize(Problem::index(tokens * outputs));
    for (float& v : p.grad) {
      v = largest > 0 ? static_cast<float>(uniform(-largest, largest)) : normal(random_);
    }
    p.beta.resize(Problem::index(per_row ? outputs : 1), 1.0F);
    p.s.resize(Problem::index(tokens), 1.0F);
    if (largest == 0) {
      std::ranges::generate(p.beta, [&] { return std::abs(normal(random_)) + 0.01F; });
      std::ranges::generate(p.s, [&] { return std::abs(normal(random_)) + 0.01F; });
    }
    p.t.resize(Problem::index(outputs * inputs));
    std::ranges::generate(p.t, [&] { return static_cast<std::int8_t>(uniform(-1, 1)); });
    // What the padding holds must not matter.
    p.q.resize(Problem::index(tokens * padded_in_features(inputs)));
    std::ranges::generate(p.q, [&] { return static_cast<std::int8_t>(uniform(-128, 127)); });
    const std::int64_t row_bytes = packed_row_bytes(inputs);
    p.codes.resize(Problem::index(outputs * row_bytes));
    for (std::int64_t n = 0; n < outputs; ++n) {
      pack_row(std::span(p.t).subspan(Problem::index(n * inputs), Problem::index(inputs)),
               std::span(p.codes).subspan(Problem::index(n * row_bytes), Problem::index(row_bytes)));
    }
    return p;
  }

  Results run(const Problem& p, int threads) const {
    constexpr float kUnwritten = 12345.678F;
    Results r{std::vector<float>(Problem::index(p.tokens * p.inputs), kUnwritten), {}};
    // On a cache line, as LibTorch's tensors are: large results are written past the caches there.
    const std::size_t count = Problem::index(p.outputs * p.inputs);
    const AlignedBuffer memory(count * sizeof(float));
    auto* const dw = reinterpret_cast<float*>(memory.data());
    std::fill_n(dw, count, kUnwritten);
    const std::unique_ptr<Parallel> parallel = make_parallel(threads);
    gradient_input(*GetParam(), *parallel,
                   {.grad = p.grad.data(),
                    .tokens = p.tokens,
                    .weight = {p.outputs, p.inputs, p.codes, p.beta},
                    .grad_x = r.dx.data()});
    gradient_weight(*GetParam(), *parallel,
                    {.grad = p.grad.data(),
                     .q = p.q.data(),
                     .scale = p.s.data(),
                     .tokens = p.tokens,
                     .out_features = p.outputs,
                     .in_features = p.inputs,
                     .grad_weight = dw});
    r.dw.assign(dw, dw + count);
    return r;
  }

  std::mt19937_64 random_;
};

/// `found` against sum over i < count of value(i) * integer(i): within count additions of three parts each, and
/// equal where every partial sum is exact.
template <typename Value, typename Integer>
void expect_sum(float found, std::int64_t count, bool exact, const Value& value, const Integer& integer) {
  double sum = 0;
  double magnitudes = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double term = static_cast<double>(value(i)) * static_cast<double>(integer(i));
    sum += term;
    magnitudes += std::abs(term);
  }
  if (exact) {
    ASSERT_EQ(found, sum);
  } else {
    ASSERT_LE(std::abs(found - sum), static_cast<double>(3 * count) * 0x1p-24 * magnitudes + 0x1p-120);
  }
}

void expect_right_input(const Problem& p, const Results& r, bool exact) {
  for (std::int64_t m = 0; m < p.tokens; ++m) {
    for (std::int64_t k = 0; k < p.inputs; ++k) {
      SCOPED_TRACE(testing::Message() << "dX[" << m << "][" << k << "]");
      ASSERT_NO_FATAL_FAILURE(expect_sum(
          r.dx[Problem::index(m * p.inputs + k)], p.outputs, exact,
          [&](std::int64_t n) { return p.weighted(m, n); }, [&](std::int64_t n) { return p.weight(n, k); }));
    }
  }
}

void expect_right_weight(const Problem& p, const Results& r, bool exact) {
  for (std::int64_t n = 0; n < p.outputs; ++n) {
    for (std::int64_t k = 0; k < p.inputs; ++k) {
      SCOPED_TRACE(testing::Message() << "dW[" << n << "][" << k << "]");
      ASSERT_NO_FATAL_FAILURE(expect_sum(
          r.dw[Problem::index(n * p.inputs + k)], p.tokens, exact,
          [&](std::int64_t m) { return p.scaled(m, n); },
          [&](std::int64_t m) { return p.activation(m, k); }));
    }
  }
}

void expect_right(const Problem& p, const Results& r, bool exact) {
  ASSERT_NO_FATAL_FAILURE(expect_right_input(p, r, exact));
  ASSERT_NO_FATAL_FAILURE(expect_right_weight(p, r, exact));
}

TEST_P(FloatProducts, RandomShapes) {
  for (int i = 0; i < random_cases(60); ++i) {
    const bool exact = i % 2 == 0;
    const std::int64_t tokens = i % 9 == 0 ? uniform(500, 600) : uniform(1, 70);
    const std::int64_t outputs = uniform(1, i % 7 == 0 ? 300 : 100);
    const std::int64_t inputs = uniform(1, 100);
    // Sums of integers below 2^24 are exact.
    const std::int64_t largest = (std::int64_t{1} << 24) / std::max(outputs, 128 * tokens);
    const Problem p = problem(tokens, outputs, inputs, exact ? largest : 0, i % 3 == 0);
    SCOPED_TRACE(testing::Message() << tokens << " tokens, " << outputs << " x " << inputs);
    ASSERT_NO_FATAL_FAILURE(expect_right(p, run(p, 1 + i % 3), exact));
  }
}

TEST_P(FloatProducts, AllBitsOfAFloatCount) {
  // From 2^-102 on: the last bits are a part of their own, of 2^-126 or more.
  Problem p = problem(64, 1, 40, 0, false);
  std::ranges::generate(p.grad, [&] {
    return std::bit_cast<float>(static_cast<std::uint32_t>(uniform(0x0c800000, 0x7f7fffff)));
  });
  p.beta = {1.0F};
  expect_right_input(p, run(p, 1), true);
}

TEST_P(FloatProducts, ManyTokensAreAddedInParts) {
  // Parts of 2,048 tokens and less; C of 8 MiB and more is written past the caches.
  const Problem p = problem(2100, 33, 36, (1 << 24) / (2100 * 128), false);
  expect_right(p, run(p, 2), true);
  const Problem large = problem(3, 1100, 2000, 1000, false);
  const Results r = run(large, 2);
  for (int i = 0; i < 2000; ++i) {
    const std::int64_t n = uniform(0, large.outputs - 1);
    const std::int64_t k = uniform(0, large.inputs - 1);
    expect_sum(
        r.dw[Problem::index(n * large.inputs + k)], large.tokens, true,
        [&](std::int64_t m) { return large.scaled(m, n); },
        [&](std::int64_t m) { return large.activation(m, k); });
  }
}

TEST_P(FloatProducts, BitsDoNotDependOnThreads) {
  const Problem p = problem(300, 2000, 130, 0, true);
  const Results one = run(p, 1);
  const Results three = run(p, 3);
  EXPECT_EQ(one.dx, three.dx);
  EXPECT_EQ(one.dw, three.dw);
}

TEST_P(FloatProducts, BadGradientsStayInTheirRow) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const float hidden_nan = std::bit_cast<float>(0x7f800001U);  // its high half is an infinity's
  for (const float bad : {kNan, kInf, -kInf, hidden_nan}) {
    Problem p = problem(40, 50, 60, 100, false);
    p.grad[Problem::index(7 * p.outputs + 9)] = bad;
    const Results r = run(p, 1);
    for (std::int64_t k = 0; k < p.inputs; ++k) {
      for (std::int64_t m = 0; m < p.tokens; ++m) {
        const float dx = r.dx[Problem::index(m * p.inputs + k)];
        const bool infinite = std::isinf(bad) && p.weight(9, k) != 0;
        EXPECT_EQ(std::isfinite(dx), m != 7);
        EXPECT_TRUE(m != 7 || (infinite ? dx == bad * static_cast<float>(p.weight(9, k)) : std::isnan(dx)));
      }
      for (std::int64_t n = 0; n < p.outputs; ++n) {
        EXPECT_EQ(std::isfinite(r.dw[Problem::index(n * p.inputs + k)]), n != 9);
      }
    }
  }
}

TEST_P(FloatProducts, NoTokens) {
  const Problem p = problem(0, 3, 5, 1, false);
  EXPECT_EQ(run(p, 1).dw, std::vector<float>(15, 0.0F));
}

// Empty where the CPU has none.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FloatProducts);
INSTANTIATE_TEST_SUITE_P(Backends, FloatProducts, testing::ValuesIn(rows_with_float_products()),
                         [](const auto& row) { return std::string(name_of(row.param->backend)); });

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// norm_quant of every backend against norm_quant_row of quantize.h, bit for bit.
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "cpu/support.h"

namespace trit::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

class NormQuantTest : public KernelTest {
 protected:
  // Rows that look for different trouble.
  std::vector<float> random_row(std::int64_t k) {
    std::vector<float> x(static_cast<std::size_t>(k));
    const std::int64_t kind = uniform(0, 9);
    const auto exponent = static_cast<float>(uniform(-40, 38));
    for (float& v : x) {
      switch (kind) {
        case 0:
        case 1:
          v = normal();
          break;
        case 2:  // ties: halves, with 127 as the largest below
          v = static_cast<float>(uniform(-253, 253)) / 2;
          break;
        case 3:  // any finite float
          v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0xbfffffffU);
          break;
        case 4:  // denormals
          v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) & 0x807fffffU);
          break;
        case 5:  // any scale, overflow of the squares included
          v = normal() * std::pow(10.0F, exponent);
          break;
        case 6:
          v = uniform(0, 30) == 0 ? normal() : 0.0F;
          break;
        case 7:  // any bits: NaN and infinities too
          v = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
          break;
        case 8:
          v = uniform(0, 1) == 0 ? 0.0F : -0.0F;
          break;
        default:
          v = std::copysign(std::exp(4 * normal()), normal());
      }
    }
    if (kind == 2) {
      x[static_cast<std::size_t>(uniform(0, k - 1))] = 127;
    }
    if (uniform(0, 9) == 0) {
      const std::array special = {kNan, -kNan, kInfinity, -kInfinity, 3.4e38F, 1e-45F};
      x[static_cast<std::size_t>(uniform(0, k - 1))] = special[static_cast<std::size_t>(uniform(0, 5))];
    }
    return x;
  }

  // One call on `rows` of x (as stored in `type`, `gap` extra elements between rows) against the oracle.
  void compare(const std::vector<std::vector<float>>& rows, DataType type, Norm norm,
               const float* norm_weight, float eps, std::int64_t gap, Parallel& parallel) {
    const auto tokens = static_cast<std::int64_t>(rows.size());
    const auto k = static_cast<std::int64_t>(rows[0].size());
    std::vector<float> x;
    std::vector<std::uint16_t> half;
    std::vector<std::vector<float>> exact = rows;  // what the kernel sees after the conversion
    for (std::vector<float>& row : exact) {
      for (float& v : row) {
        half.push_back(type == DataType::float32 ? std::uint16_t{0} : to_half(type, v));
        v = type == DataType::float32 ? v : from_half(type, half.back());
        x.push_back(v);
      }
      x.resize(x.size() + static_cast<std::size_t>(gap), kNan);
      half.resize(half.size() + static_cast<std::size_t>(gap), 0xffff);
    }
    QuantizedBatch found(tokens, k);
    std::fill(found.q.begin(), found.q.end(), std::int8_t{77});
    norm_quant(kernels(), parallel,
               {.x = type == DataType::float32 ? static_cast<const void*>(x.data()) : half.data(),
                .x_type = type,
                .tokens = tokens,
                .in_features = k,
                .x_stride = k + gap,
                .norm = norm,
                .norm_weight = norm_weight,
                .eps = eps,
                .q = found.q.data(),
                .scale = found.scale.data(),
                .rstd = uniform(0, 3) == 0 ? nullptr : found.rstd.data(),
                .q_sum = found.q_sum.data()});
    const bool rstd_given = found.rstd != std::vector<float>(rows.size());
    const auto padded = static_cast<std::size_t>(padded_in_features(k));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::vector<std::int8_t> q(padded);
      const std::span<const float> weight = norm_weight == nullptr
                                                ? std::span<const float>()
                                                : std::span(norm_weight, static_cast<std::size_t>(k));
      const TokenScales scales =
          norm_quant_row(exact[i], norm, weight, eps, std::span(q).first(static_cast<std::size_t>(k)));
      const auto what = [&] {
        return "row " + std::to_string(i) + ", K = " + std::to_string(k) + ", " + std::string(name_of(type)) +
               (norm == Norm::rms ? ", rms" : ", none");
      };
      ASSERT_TRUE(same_bits(found.scale[i], scales.scale))
          << what() << ' ' << found.scale[i] << ' ' << scales.scale;
      if (rstd_given) {
        ASSERT_TRUE(same_bits(found.rstd[i], scales.rstd))
            << what() << ' ' << found.rstd[i] << ' ' << scales.rstd;
      }
      for (std::size_t j = 0; j < padded; ++j) {
        ASSERT_EQ(int{found.q[i * padded + j]}, int{q[j]}) << what() << ", input " << j;
      }
      ASSERT_EQ(found.q_sum[i], std::accumulate(q.begin(), q.end(), 0)) << what();
    }
    cases_ += tokens;
  }

  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

TEST_P(NormQuantTest, RandomRows) {
  for (int i = 0; i < 2500 && !HasFatalFailure(); ++i) {
    const std::int64_t k = i < 600 ? i + 1 : uniform(1, 1500);
    const std::int64_t tokens = uniform(1, 3);
    std::vector<std::vector<float>> rows;
    for (std::int64_t token = 0; token < tokens; ++token) {
      rows.push_back(random_row(k));
    }
    std::vector<float> norm_weight = random_row(k);
    if (uniform(0, 1) == 0) {
      std::generate(norm_weight.begin(), norm_weight.end(), [&] { return 1 + normal() / 4; });
    }
    const std::array eps = {1e-6F, 1e-5F, 1.0F, 1e-45F, 1e-30F};
    compare(rows, static_cast<DataType>(uniform(0, 2)), uniform(0, 2) == 0 ? Norm::none : Norm::rms,
            uniform(0, 2) == 0 ? nullptr : norm_weight.data(), eps[static_cast<std::size_t>(uniform(0, 4))],
            uniform(0, 1) * uniform(0, 9), *parallel_);
  }
}

TEST_P(NormQuantTest, LongRows) {
  for (const std::int64_t k : {4096LL, 14336LL, 65537LL, 200003LL}) {
    compare({random_row(k), random_row(k)}, DataType::float32, Norm::rms, nullptr, 1e-6F, 0, *parallel_);
    compare({random_row(k)}, DataType::bfloat16, Norm::rms, random_row(k).data(), 1e-6F, 0, *parallel_);
  }
}

// All 65,536 values of the 16-bit types, as inputs.
TEST_P(NormQuantTest, EveryHalf) {
  for (const DataType type : {DataType::bfloat16, DataType::float16}) {
    for (unsigned base = 0; base < 0x10000; base += 64) {
      std::vector<float> row;
      for (unsigned bits = base; bits < base + 64; ++bits) {
        row.push_back(from_half(type, static_cast<std::uint16_t>(bits)));
      }
      compare({row}, type, Norm::none, nullptr, 1e-6F, 0, *parallel_);
      compare({row}, type, Norm::rms, nullptr, 1e-6F, 0, *parallel_);
    }
  }
}

// Each way in which a row is bad, alone: its squares, its weighted values, and their product with r overflow.
TEST_P(NormQuantTest, WaysToBeBad) {
  std::vector<float> x(600, 0.0F);
  std::vector<float> norm_weight(600, 1.0F);
  std::vector<std::int8_t> q(600);
  const auto compare_one = [&] {
    compare({x}, DataType::float32, Norm::rms, norm_weight.data(), 1e-6F, 0, *parallel_);
  };
  x[300] = 2e19F;  // x^2 overflows, x does not
  compare_one();
  x[300] = 2.0F;
  norm_weight[300] = 3e38F;  // x * g overflows
  compare_one();
  x[300] = 1.0F;  // ms = 1 / 600, r = 24.5: r * m overflows, m does not
  compare_one();
  EXPECT_TRUE(std::isnan(norm_quant_row(x, Norm::rms, norm_weight, 1e-6F, q).scale));
  norm_weight[300] = 1e37F;  // r * m = 2.45e38: good
  compare_one();
  EXPECT_FALSE(std::isnan(norm_quant_row(x, Norm::rms, norm_weight, 1e-6F, q).scale));
}

// A bad row does not touch its neighbours, and rows are independent of the threads.
TEST_P(NormQuantTest, ManyRowsOnThreads) {
  const auto parallel = make_parallel(3);
  std::vector<std::vector<float>> rows;
  for (int i = 0; i < 700; ++i) {
    rows.push_back(random_row(600));
  }
  rows[17][5] = kNan;
  rows[400][599] = -kInfinity;
  const std::vector<float> norm_weight = random_row(600);
  compare(rows, DataType::float32, Norm::rms, norm_weight.data(), 1e-6F, 3, *parallel);
}

// q past the caches, on a cache line and beside one.
TEST_P(NormQuantTest, PastTheCaches) {
  for (int i = 0; i < 100; ++i) {
    const std::int64_t k = uniform(1, 700);
    std::vector<float> x(static_cast<std::size_t>(k));
    std::generate(x.begin(), x.end(), [&] { return static_cast<float>(uniform(-1000, 1000)); });
    alignas(64) std::array<std::int8_t, 832> q{};
    std::array<std::int8_t, 832> wanted{};
    const std::int64_t offset = i % 2 == 0 ? 0 : 4 * uniform(1, 16);
    float scale = 0;
    float rstd = 0;
    std::int32_t sum = 0;
    const auto run = [&](bool non_temporal, std::int8_t* to) {
      const DefaultFloatingPoint environment;
      kernels().norm_quant_row({.x = x.data(),
                                .x_type = DataType::float32,
                                .in_features = k,
                                .norm = Norm::rms,
                                .norm_weight = nullptr,
                                .eps = 1e-6F,
                                .q = to,
                                .scale = &scale,
                                .rstd = &rstd,
                                .q_sum = &sum,
                                .non_temporal = non_temporal});
    };
    run(true, q.data() + offset);
    run(false, wanted.data() + offset);
    ASSERT_EQ(q, wanted) << "K = " << k << ", offset " << offset;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, NormQuantTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test

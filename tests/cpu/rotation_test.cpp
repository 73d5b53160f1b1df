// SPDX-License-Identifier: MIT
//
// norm_rotate_quant of every backend against rotate_row and the definition of the codes, and look_up.
#include "trit/rotation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cpu/support.h"
#include "format/quantize_inputs.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class RotationTest : public KernelTest {};

TEST_P(RotationTest, EqualsTheDefinition) {
  const auto parallel = make_parallel(2);
  for (int i = 0; i < random_cases(60); ++i) {
    const std::int64_t block = std::int64_t{512} << uniform(0, 3);
    const std::int64_t k = block * uniform(1, 3), m = uniform(1, 4),
                       group = i % 3 == 0 ? 0 : 32 * uniform(1, 40);
    const Norm norm = uniform(0, 1) == 0 ? Norm::none : Norm::rms;
    const auto inputs = static_cast<std::size_t>(k);
    std::vector<float> x(static_cast<std::size_t>(m) * inputs), norm_weight(inputs);
    std::generate(x.begin(), x.end(), [&] { return normal(); });
    std::generate(norm_weight.begin(), norm_weight.end(), [&] { return 1 + normal() / 8; });
    if (i % 5 == 0) {
      constexpr std::array kBad = {std::numeric_limits<float>::infinity(), 3e38F,
                                   std::numeric_limits<float>::quiet_NaN()};
      x[static_cast<std::size_t>(uniform(0, k - 1))] = kBad[static_cast<std::size_t>(uniform(0, 2))];
    }
    std::vector<std::int8_t> signs(inputs);
    std::generate(signs.begin(), signs.end(),
                  [&] { return static_cast<std::int8_t>(2 * uniform(0, 1) - 1); });
    const Rotation rotation{block, i % 4 == 0 ? nullptr : signs.data()};
    QuantizedBatch batch(m, k);
    const auto groups = static_cast<std::size_t>(groups_of(k, group));
    batch.scale.resize(static_cast<std::size_t>(m) * groups);
    norm_rotate_quant(kernels(), *parallel,
                      {.x = x.data(),
                       .tokens = m,
                       .in_features = k,
                       .x_stride = k,
                       .norm = norm,
                       .norm_weight = norm_weight.data(),
                       .q = batch.q.data(),
                       .scale = batch.scale.data(),
                       .rstd = batch.rstd.data(),
                       .q_sum = batch.q_sum.data(),
                       .group = group},
                      rotation);
    for (std::size_t token = 0; token < static_cast<std::size_t>(m); ++token) {
      std::vector<float> z(x.begin() + static_cast<std::ptrdiff_t>(token * inputs),
                           x.begin() + static_cast<std::ptrdiff_t>((token + 1) * inputs));
      std::vector<std::int8_t> q(inputs);
      const float rstd = norm_quant_row(z, norm, norm_weight, 1e-6F, q).rstd;
      const float mean_square = rstd == 0 ? std::numeric_limits<float>::infinity() : 0.0F;
      for (std::size_t j = 0; j < inputs && norm == Norm::rms; ++j) {
        z[j] *= norm_weight[j];
      }
      rotate_row(z, rotation);
      std::vector<float> scale;
      const std::size_t size = group == 0 ? inputs : static_cast<std::size_t>(group);
      for (std::size_t first = 0; first < inputs; first += size) {
        const std::size_t count = std::min(size, inputs - first);
        scale.push_back(quantize_inputs(std::span(z).subspan(first, count), norm, {}, {mean_square, rstd},
                                        std::span(q).subspan(first, count)));
      }
      ASSERT_TRUE(std::equal(q.begin(), q.end(), batch.q.data() + token * inputs)) << "K = " << k;
      ASSERT_EQ(batch.q_sum[token], std::accumulate(q.begin(), q.end(), 0));
      ASSERT_TRUE(same_bits(batch.rstd[token], rstd));
      for (std::size_t g = 0; g < groups; ++g) {
        ASSERT_TRUE(same_bits(batch.scale[token * groups + g], scale[g])) << "K = " << k << ", group " << g;
      }
    }
    ++cases_;
  }
}

TEST_P(RotationTest, LookUpEqualsTheDefinition) {
  const auto parallel = make_parallel(2);
  for (int i = 0; i < random_cases(60); ++i) {
    const bool rotated = i % 3 != 0;
    const std::int64_t block = std::int64_t{512} << uniform(0, 3);
    const std::int64_t k = rotated ? block * uniform(1, 3) : uniform(1, 700), n = uniform(1, 50);
    const std::int64_t group = i % 4 == 0 ? 32 * uniform(1, 9) : 0;
    const std::int64_t scales = group != 0 ? groups_of(k, group) * n : i % 4 == 1 ? n : 1;
    TernaryMatrix table{n, k, std::vector<std::uint8_t>(static_cast<std::size_t>(n * packed_row_bytes(k))),
                        std::vector<float>(static_cast<std::size_t>(scales)), group};
    std::generate(table.scale.begin(), table.scale.end(), [&] {
      return std::ldexp(1.0F + static_cast<float>(uniform(0, 9)) / 8, static_cast<int>(uniform(-130, 20)));
    });
    std::vector<std::int8_t> t(static_cast<std::size_t>(n * k));
    std::generate(t.begin(), t.end(), [&] { return static_cast<std::int8_t>(uniform(-1, 1)); });
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    const auto inputs = static_cast<std::size_t>(k);
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      pack_row(std::span(t).subspan(row * inputs, inputs),
               std::span(table.codes).subspan(row * row_bytes, row_bytes));
    }
    std::vector<std::int8_t> signs(inputs);
    std::generate(signs.begin(), signs.end(),
                  [&] { return static_cast<std::int8_t>(2 * uniform(0, 1) - 1); });
    const Rotation rotation{block, i % 2 == 0 ? nullptr : signs.data()};
    std::vector<std::int64_t> rows(static_cast<std::size_t>(uniform(1, 9)));
    std::generate(rows.begin(), rows.end(), [&] { return uniform(0, static_cast<int>(n) - 1); });
    std::vector<float> y(rows.size() * inputs);
    look_up(kernels(), *parallel, table.view(), rows, rotated ? &rotation : nullptr, y.data());
    for (std::size_t at = 0; at < rows.size(); ++at) {
      const auto row = static_cast<std::size_t>(rows[at]);
      std::vector<float> wanted(inputs);
      for (std::size_t j = 0; j < inputs; ++j) {
        const std::size_t scale = group != 0 ? row * static_cast<std::size_t>(groups_of(k, group)) +
                                                   j / static_cast<std::size_t>(group)
                                  : scales == n ? row
                                                : 0;
        wanted[j] = static_cast<float>(t[row * inputs + j]) * table.scale[scale];
      }
      if (rotated) {
        rotate_row_back(wanted, rotation);
      }
      for (std::size_t j = 0; j < inputs; ++j) {
        ASSERT_TRUE(same_bits(y[at * inputs + j], wanted[j])) << "K = " << k << ", " << j;
      }
    }
    rows.back() = i % 2 == 0 ? n : -1;
    EXPECT_THROW(look_up(kernels(), *parallel, table.view(), rows, nullptr, y.data()), Error);
    ++cases_;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RotationTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test

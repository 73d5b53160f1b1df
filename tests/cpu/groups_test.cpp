// SPDX-License-Identifier: MIT
//
// Group scales: products of every layout against the scalar row, bit for bit, over random shapes, groups and
// scales (TRIT_GROUP_SHAPES sets how many); the scalar row against group_product; whole layers against
// bit_linear_row.
#include <algorithm>
#include <limits>
#include <numeric>

#include "cpu/support.h"
#include "trit/error.h"

namespace trit::test {
namespace {

/// What the scales of a matrix or of tokens are like.
enum class Scales { float16, float32, equal, far_apart, subnormal, half_subnormal, huge, count };

class GroupTest : public testing::Test {
 protected:
  GroupTest() : random_(run_seed()) {}

  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  float normal() { return std::normal_distribution<float>()(random_); }

  std::int64_t random_group(std::int64_t k) {
    const std::array<std::int64_t, 7> sizes = {32, 64, 96, 128, 256, (k + 31) / 32 * 32, 32 * uniform(1, 30)};
    return sizes[static_cast<std::size_t>(uniform(0, 6))];
  }
  float random_scale(Scales kind) {
    switch (kind) {
      case Scales::float16:
        return float16_to_float(float_to_float16(std::exp(normal()) / 50));
      case Scales::equal:
        return 0.0123F;
      case Scales::far_apart:
        return uniform(0, 1) == 0 ? 0.03125F : 0.03125F * 1e4F;
      case Scales::subnormal:
        return std::bit_cast<float>(static_cast<std::uint32_t>(uniform(1, 0x00ffffff)));
      case Scales::half_subnormal:
        return float16_to_float(static_cast<std::uint16_t>(uniform(1, 0x7ff)));
      case Scales::huge:
        return std::ldexp(1 + std::fabs(normal()), static_cast<int>(uniform(40, 124)));
      default:
        return std::exp(normal() * 3);
    }
  }
  Scales random_kind() { return static_cast<Scales>(uniform(0, static_cast<int>(Scales::count) - 1)); }

  /// All weights `t` where it is -1 or +1, else random ones.
  TernaryMatrix random_matrix(std::int64_t n, std::int64_t k, std::int64_t group, int t) {
    TernaryMatrix matrix{n, k, {}, {}, group};
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    matrix.codes.resize(static_cast<std::size_t>(n) * row_bytes);
    std::vector<std::int8_t> weights(static_cast<std::size_t>(k));
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      std::generate(weights.begin(), weights.end(), [&] {
        return static_cast<std::int8_t>(t != 0 ? t : static_cast<int>(random_() % 3) - 1);
      });
      pack_row(weights, std::span(matrix.codes).subspan(row * row_bytes, row_bytes));
    }
    const Scales kind = random_kind();
    matrix.scale.resize(static_cast<std::size_t>(n * groups_of(k, group)));
    std::generate(matrix.scale.begin(), matrix.scale.end(), [&] { return random_scale(kind); });
    return matrix;
  }

  /// Codes all `value` where it is not 0, else random ones.
  QuantizedBatch random_batch(std::int64_t tokens, std::int64_t k, std::int64_t scale_group, int value) {
    QuantizedBatch batch(tokens, k);
    batch.group = scale_group;
    const std::int64_t padded = padded_in_features(k);
    for (std::int64_t token = 0; token < tokens; ++token) {
      std::generate_n(batch.q.data() + token * padded, k, [&] {
        return static_cast<std::int8_t>(value == 0 ? static_cast<int>(random_()) : value);
      });
      batch.q_sum[static_cast<std::size_t>(token)] =
          std::accumulate(batch.q.data() + token * padded, batch.q.data() + (token + 1) * padded, 0);
    }
    batch.scale.resize(static_cast<std::size_t>(tokens * groups_of(k, scale_group)));
    const Scales kind = uniform(0, 3) == 0 ? random_kind() : Scales::float32;
    std::generate(batch.scale.begin(), batch.scale.end(), [&] { return random_scale(kind); });
    if (uniform(0, 7) == 0) {
      batch.scale[static_cast<std::size_t>(uniform(0, std::ssize(batch.scale) - 1))] =
          std::numeric_limits<float>::quiet_NaN();
    }
    return batch;
  }
  std::vector<float> random_bias(std::int64_t n) {
    std::vector<float> bias(uniform(0, 1) == 0 ? 0 : static_cast<std::size_t>(n));
    std::generate(bias.begin(), bias.end(), [&] { return normal(); });
    return bias;
  }

  std::vector<float> product(const CpuKernels& kernels, PanelFormat format, const TernaryMatrix& matrix,
                             const QuantizedBatch& batch, const std::vector<float>& bias) {
    std::vector<float> y(static_cast<std::size_t>(batch.tokens * matrix.out_features), -7.5F);
    PackedLinear(kernels, *parallel_, matrix.view(), format)
        .product(*parallel_, batch.rows(), bias.empty() ? nullptr : bias.data(), DataType::float32, y.data());
    return y;
  }

  std::mt19937_64 random_;
  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

int shapes_to_try() {
  const char* const text = std::getenv("TRIT_GROUP_SHAPES");
  return text != nullptr ? static_cast<int>(std::strtol(text, nullptr, 10)) : random_cases(4'000);
}

TEST_F(GroupTest, ScalarRowEqualsTheDefinition) {
  const int cases = random_cases(2'000);
  for (int i = 0; i < cases; ++i) {
    const std::int64_t m = uniform(1, 9), n = uniform(1, 9), k = uniform(1, 600);
    const std::int64_t group = random_group(k);
    const TernaryMatrix matrix = random_matrix(n, k, group, i % 10 == 0 ? 1 : 0);
    const QuantizedBatch batch = random_batch(m, k, uniform(0, 1) == 0 ? 0 : group, i % 10 == 0 ? 127 : 0);
    const std::vector<float> bias = random_bias(n);
    const std::vector<float> y =
        product(cpu_kernels_for(Backend::scalar), PanelFormat::two_bit, matrix, batch, bias);
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    const auto groups = static_cast<std::size_t>(groups_of(k, group));
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      unpack_row(std::span(matrix.codes).subspan(row * row_bytes, row_bytes), t);
      for (std::size_t token = 0; token < static_cast<std::size_t>(m); ++token) {
        const float wanted = group_product(
            std::span(batch.q).subspan(token * static_cast<std::size_t>(padded_in_features(k)), t.size()), t,
            group, std::span(matrix.scale).subspan(row * groups, groups), batch.scale[token],
            batch.group == 0 ? nullptr : batch.scale.data() + token * groups,
            bias.empty() ? nullptr : &bias[row]);
        ASSERT_TRUE(same_bits(y[token * static_cast<std::size_t>(n) + row], wanted))
            << "M = " << m << ", N = " << n << ", K = " << k << ", group " << group;
      }
    }
  }
  std::printf("%d products\n", cases);
}

TEST_F(GroupTest, RandomShapesEqualTheScalarRow) {
  const int shapes = shapes_to_try();
  std::int64_t comparisons = 0;
  for (int i = 0; i < shapes; ++i) {
    const bool large = i % 16 == 0;
    const std::int64_t m = uniform(1, large ? 40 : 14), n = uniform(1, large ? 260 : 90),
                       k = uniform(1, large ? 1500 : 400), group = random_group(k);
    constexpr std::array kExtremes = {-128, -127, 127};
    const bool extreme = i % 10 == 0;
    const TernaryMatrix matrix = random_matrix(n, k, group, extreme ? (uniform(0, 1) == 0 ? -1 : 1) : 0);
    const QuantizedBatch batch =
        random_batch(m, k, uniform(0, 1) == 0 ? 0 : group,
                     extreme ? kExtremes[static_cast<std::size_t>(uniform(0, 2))] : 0);
    const std::vector<float> bias = random_bias(n);
    const std::vector<float> wanted =
        product(cpu_kernels_for(Backend::scalar), PanelFormat::two_bit, matrix, batch, bias);
    for (const RowAndLayout& entry : available_layouts()) {
      if (entry.kernels->backend != Backend::scalar) {
        ASSERT_TRUE(same_bits(product(*entry.kernels, entry.layout->format, matrix, batch, bias), wanted))
            << name_of(entry.kernels->backend) << ", M = " << m << ", N = " << n << ", K = " << k
            << ", group " << group << ", token scales of " << batch.group;
        ++comparisons;
      }
    }
  }
  std::printf("%d shapes, %lld comparisons with the scalar row\n", shapes,
              static_cast<long long>(comparisons));
}

/// Whole layers of a backend.
class GroupLayerTest : public LayoutTest {};

TEST_P(GroupLayerTest, EqualsTheDefinition) {
  const auto parallel = make_parallel(1);
  for (int i = 0; i < random_cases(150); ++i) {
    const std::int64_t m = uniform(1, 8), n = uniform(1, 140), k = uniform(1, 700),
                       group = 32 * uniform(1, 9);
    std::vector<float> w(static_cast<std::size_t>(n * k)), x(static_cast<std::size_t>(m * k));
    std::vector<float> norm_weight(static_cast<std::size_t>(k)), bias(static_cast<std::size_t>(n));
    for (std::vector<float>* values : {&w, &x, &norm_weight, &bias}) {
      std::generate(values->begin(), values->end(), [&] { return normal(); });
    }
    const bool per_group = uniform(0, 1) == 0;
    const Norm norm = uniform(0, 1) == 0 ? Norm::none : Norm::rms;
    const TernaryMatrix wanted = pack(w, n, k, ScaleGranularity::group, group);
    TernaryMatrix matrix{n, k, std::vector<std::uint8_t>(wanted.codes.size()),
                         std::vector<float>(wanted.scale.size()), group};
    absmean(kernels(), *parallel, w.data(), n, k, ScaleGranularity::group, matrix.scale.data(), group);
    ASSERT_TRUE(same_bits(matrix.scale, wanted.scale));
    ternarize_pack(kernels(), *parallel, w.data(), n, k, ScaleGranularity::group, matrix.scale.data(),
                   matrix.codes.data(), group);
    ASSERT_EQ(matrix.codes, wanted.codes);
    ASSERT_NO_THROW(check(matrix.view(), "w"));

    QuantizedBatch batch(m, k);
    batch.group = per_group ? group : 0;
    batch.scale.resize(static_cast<std::size_t>(m * groups_of(k, batch.group)));
    norm_quant(kernels(), *parallel,
               {.x = x.data(),
                .tokens = m,
                .in_features = k,
                .x_stride = k,
                .norm = norm,
                .norm_weight = norm_weight.data(),
                .q = batch.q.data(),
                .scale = batch.scale.data(),
                .q_sum = batch.q_sum.data(),
                .group = batch.group});
    std::vector<float> y(static_cast<std::size_t>(m * n));
    PackedLinear(kernels(), *parallel, matrix.view(), layout().format)
        .product(*parallel, batch.rows(), bias.data(), DataType::float32, y.data());
    std::vector<float> row(static_cast<std::size_t>(n)), all;
    for (std::size_t token = 0; token < static_cast<std::size_t>(m); ++token) {
      bit_linear_row(std::span(x).subspan(token * norm_weight.size(), norm_weight.size()), matrix.view(),
                     norm, norm == Norm::rms ? std::span<const float>(norm_weight) : std::span<const float>(),
                     1e-6F, bias, row,
                     per_group ? TokenScaleGranularity::group : TokenScaleGranularity::token);
      all.insert(all.end(), row.begin(), row.end());
    }
    ASSERT_TRUE(same_bits(y, all)) << "M = " << m << ", N = " << n << ", K = " << k << ", group " << group;
    ++cases_;
  }
}

TEST_P(GroupLayerTest, Dequantize) {
  const auto parallel = make_parallel(2);
  const TernaryMatrix matrix{2, 40, std::vector<std::uint8_t>(20, 0x1d), {1, 2, 3, 4}, 32};  // +1 -1 +1 0 ...
  std::vector<float> w(80);
  dequantize(kernels(), *parallel, matrix.view(), w.data());
  for (std::size_t i = 0; i < w.size(); ++i) {
    const float scale = matrix.scale[i / 40 * 2 + (i % 40 >= 32 ? 1 : 0)];
    const std::array<float, 4> wanted = {scale, -scale, scale, 0};
    EXPECT_EQ(w[i], wanted[i % 4]);
  }
}

TEST_P(GroupLayerTest, AnyNumberOfThreadsAndLongGroups) {
  for (const auto& shape : {std::array<std::int64_t, 4>{1, 1000, 2000, 128},
                            {130, 130, 999, 64},
                            {161, 70, 1604, 128},
                            {100, 130, 1536, 256},
                            {40, 100, 2000, 192},
                            {67, 33, 1500, 320},
                            {9, 65, 70'000, 128},
                            {7, 65, 70'000, 70'016},
                            {2, 3, 300'000, 150'016}}) {
    // Copies, since clang 14 lets no lambda capture a structured binding.
    const std::int64_t m = shape[0], n = shape[1], k = shape[2], group = shape[3];
    TernaryMatrix matrix = random_matrix(n, k, false);
    matrix.group = group;
    matrix.scale.resize(static_cast<std::size_t>(n * groups_of(k, group)));
    std::generate(matrix.scale.begin(), matrix.scale.end(), [&] { return std::exp(normal()); });
    QuantizedBatch batch(m, k);
    const std::int64_t padded = padded_in_features(k);
    for (std::int64_t token = 0; token < m; ++token) {
      std::generate_n(batch.q.data() + token * padded, k,
                      [&] { return static_cast<std::int8_t>(uniform(-128, 127)); });
    }
    const auto product = [&](const CpuKernels& row, PanelFormat format, int threads) {
      const auto parallel = make_parallel(threads);
      std::vector<float> y(static_cast<std::size_t>(m * n));
      PackedLinear(row, *parallel, matrix.view(), format)
          .product(*parallel, batch.rows(), nullptr, DataType::float32, y.data());
      return y;
    };
    const std::vector<float> wanted = product(cpu_kernels_for(Backend::scalar), PanelFormat::two_bit, 1);
    for (const int threads : {1, 2, 3, 7}) {
      ASSERT_TRUE(same_bits(product(kernels(), layout().format, threads), wanted))
          << threads << " threads, M = " << m << ", N = " << n << ", K = " << k << ", group " << group;
      ++cases_;
    }
  }
}

TEST_P(GroupLayerTest, Refuses) {
  const auto parallel = make_parallel(1);
  TernaryMatrix matrix = random_matrix(3, 100, false);
  matrix.scale.assign(6, 1.0F);
  for (const std::int64_t group : {-32, 1, 48, 128}) {
    matrix.group = group;
    EXPECT_THROW(PackedLinear(kernels(), *parallel, matrix.view()), Error) << group;
    EXPECT_THROW(check(matrix.view(), "w"), Error) << group;
  }
  matrix.group = 64;
  const PackedLinear layer(kernels(), *parallel, matrix.view());
  EXPECT_EQ(layer.group(), 64);
  QuantizedBatch batch(1, 100);
  batch.scale.resize(4);
  batch.group = 32;
  float y[3];
  EXPECT_THROW(layer.product(*parallel, batch.rows(), nullptr, DataType::float32, y), Error);
}

INSTANTIATE_TEST_SUITE_P(Backends, GroupLayerTest, testing::ValuesIn(available_layouts()), layout_name);

}  // namespace
}  // namespace trit::test

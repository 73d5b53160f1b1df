// SPDX-License-Identifier: MIT
//
// absmean, ternarize_pack and dequantize of every backend against quantize.h and format.h.
#include <algorithm>
#include <limits>

#include "cpu/support.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class WeightsTest : public KernelTest {
 protected:
  std::vector<float> random_weights(std::int64_t count) {
    std::vector<float> w(static_cast<std::size_t>(count));
    const std::int64_t kind = uniform(0, 5);
    for (float& v : w) {
      v = kind == 0   ? std::bit_cast<float>(static_cast<std::uint32_t>(random_()))
          : kind == 1 ? static_cast<float>(uniform(-4, 4)) / 2  // ties of a scale that is a power of two
          : kind == 2 ? normal() * 1e-6F
          : kind == 3 ? normal() * 1e-40F
                      : normal() * 0.02F;
    }
    return w;
  }
  // w quantised with `scale` by this backend and by the oracle.
  void compare_codes(const std::vector<float>& w, std::int64_t n, std::int64_t k,
                     const std::vector<float>& scale, Parallel& parallel) {
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    std::vector<std::uint8_t> found(static_cast<std::size_t>(n) * row_bytes, 0xaa);
    const auto granularity = scale.size() == 1 ? ScaleGranularity::tensor : ScaleGranularity::row;
    ternarize_pack(kernels(), parallel, w.data(), n, k, granularity, scale.data(), found.data());
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    std::vector<std::uint8_t> wanted(found.size());
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      ternarize_row(std::span(w).subspan(row * t.size(), t.size()), scale[scale.size() == 1 ? 0 : row], t);
      pack_row(t, std::span(wanted).subspan(row * row_bytes, row_bytes));
    }
    ASSERT_EQ(found, wanted) << n << " x " << k;
    ++cases_;
  }

  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

TEST_P(WeightsTest, RandomMatrices) {
  for (int i = 0; i < 1500 && !HasFatalFailure(); ++i) {
    const std::int64_t k = i < 300 ? i + 1 : uniform(1, 1200);
    const std::int64_t n = uniform(1, i % 50 == 0 ? 700 : 6);
    const std::vector<float> w = random_weights(n * k);
    const auto granularity = uniform(0, 1) == 0 ? ScaleGranularity::tensor : ScaleGranularity::row;
    std::vector<float> scale(granularity == ScaleGranularity::tensor ? 1 : static_cast<std::size_t>(n));
    absmean(kernels(), *parallel_, w.data(), n, k, granularity, scale.data());
    const std::vector<float> wanted = trit::absmean(w, n, k, granularity);
    ASSERT_TRUE(same_bits(scale, wanted)) << n << " x " << k;
    compare_codes(w, n, k, scale, *parallel_);
    std::fill(scale.begin(), scale.end(), 0.5F);
    compare_codes(w, n, k, scale, *parallel_);
  }
}

TEST_P(WeightsTest, Specials) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> w;
  for (int i = 0; i < 70; ++i) {
    for (const float v : {0.5F, 0.50000006F, 0.49999997F, 1.5F, kInfinity, nan, 0.0F, 1e-45F}) {
      w.push_back(v);
      w.push_back(-v);
    }
  }
  for (const float scale : {1.0F, 2.0F, 1e-5F, 3.4e38F, nan}) {
    for (const std::int64_t k : {1, 3, 8, 31, 33, 160, 1120}) {
      compare_codes(w, 1120 / k, k, {scale}, *parallel_);
    }
  }
}

TEST_P(WeightsTest, Threads) {
  const std::int64_t n = 1031;
  const std::int64_t k = 517;
  std::vector<float> w(static_cast<std::size_t>(n * k));
  std::generate(w.begin(), w.end(), [&] { return normal(); });
  for (const int threads : {1, 2, 3, 7}) {
    const auto parallel = make_parallel(threads);
    std::vector<float> scale(1);
    absmean(kernels(), *parallel, w.data(), n, k, ScaleGranularity::tensor, scale.data());
    ASSERT_TRUE(same_bits(scale, trit::absmean(w, n, k, ScaleGranularity::tensor))) << threads;
    compare_codes(w, n, k, scale, *parallel);
    scale.resize(static_cast<std::size_t>(n));
    absmean(kernels(), *parallel, w.data(), n, k, ScaleGranularity::row, scale.data());
    ASSERT_TRUE(same_bits(scale, trit::absmean(w, n, k, ScaleGranularity::row))) << threads;
    compare_codes(w, n, k, scale, *parallel);
  }
}

TEST_P(WeightsTest, Dequantize) {
  for (std::int64_t k = 1; k < 300; ++k) {
    const std::int64_t n = uniform(1, 5);
    TernaryMatrix matrix = random_matrix(n, k, uniform(0, 1) == 0);
    if (k % 50 == 0) {
      matrix.scale[0] = std::numeric_limits<float>::quiet_NaN();  // what training may pass through
    }
    std::vector<float> w(static_cast<std::size_t>(n * k));
    dequantize(kernels(), *parallel_, matrix.view(), w.data());
    std::vector<float> wanted;
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(k));
    for (std::size_t row = 0; row < static_cast<std::size_t>(n); ++row) {
      unpack_row(std::span(matrix.codes).subspan(row * row_bytes, row_bytes), t);
      for (const std::int8_t value : t) {
        wanted.push_back(static_cast<float>(value) * matrix.scale[matrix.scale.size() == 1 ? 0 : row]);
      }
    }
    ASSERT_TRUE(same_bits(w, wanted)) << n << " x " << k;
    ++cases_;
  }
}

TEST_P(WeightsTest, Errors) {
  float value = 1;
  std::uint8_t code = 0;
  EXPECT_THROW(absmean(kernels(), *parallel_, &value, 0, 1, ScaleGranularity::tensor, &value), Error);
  EXPECT_THROW(absmean(kernels(), *parallel_, &value, 1, 0, ScaleGranularity::tensor, &value), Error);
  EXPECT_THROW(ternarize_pack(kernels(), *parallel_, &value, 1, -1, ScaleGranularity::tensor, &value, &code),
               Error);
  const TernaryMatrix matrix{2, 5, {0, 0, 0}, {1.0F}};
  EXPECT_THROW(dequantize(kernels(), *parallel_, matrix.view(), &value), Error);
}

INSTANTIATE_TEST_SUITE_P(Backends, WeightsTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test

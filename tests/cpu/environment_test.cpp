// SPDX-License-Identifier: MIT
//
// The caller's floating-point environment (rounding direction, flush-to-zero) changes no result and is the
// caller's again afterwards.
#include <algorithm>

#include "cpu/support.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace trit::test {
namespace {

constexpr unsigned kDefault = 0x1f80;
constexpr unsigned kFlushToZero = 0x8000;
constexpr unsigned kDenormalsAreZero = 0x0040;
constexpr unsigned kRoundDown = 0x2000;
constexpr unsigned kRoundToZero = 0x6000;

class Environment {
 public:
  explicit Environment(unsigned mxcsr) { _mm_setcsr(mxcsr); }
  ~Environment() { _mm_setcsr(kDefault); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
};

// A host's pool that knows nothing of floating-point environments.
class CarelessParallel final : public Parallel {
 public:
  int threads() const override { return 2; }
  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override {
    for (std::int64_t i = 0; i < tasks; ++i) {
      task(i);
    }
  }
};

class EnvironmentTest : public KernelTest {
 protected:
  static constexpr std::int64_t kTokens = 40;
  static constexpr std::int64_t kRows = 300;
  static constexpr std::int64_t kInputs = 500;

  EnvironmentTest() : w_(kRows * kInputs), x_(kTokens * kInputs) {
    // Sums, scales and outputs among the denormals as well as among the rounded.
    std::generate(w_.begin(), w_.end(), [&] { return normal() * (uniform(0, 1) == 0 ? 1e-39F : 1.0F); });
    std::generate(x_.begin(), x_.end(), [&] { return normal() * (uniform(0, 1) == 0 ? 1e-39F : 1.0F); });
    std::fill_n(w_.begin(), kInputs, 1e-41F);  // a row whose absmean is a denormal before it is clamped
  }
  // Everything that the library computes, one after the other.
  std::vector<float> everything(Parallel& parallel) const {
    std::vector<float> scale(kRows);
    absmean(kernels(), parallel, w_.data(), kRows, kInputs, ScaleGranularity::row, scale.data());
    std::vector<float> result = scale;
    float tensor = 0;
    absmean(kernels(), parallel, w_.data(), kRows, kInputs, ScaleGranularity::tensor, &tensor);
    result.push_back(tensor);
    TernaryMatrix matrix{kRows, kInputs, std::vector<std::uint8_t>(kRows * packed_row_bytes(kInputs)), scale};
    ternarize_pack(kernels(), parallel, w_.data(), kRows, kInputs, ScaleGranularity::row, scale.data(),
                   matrix.codes.data());
    std::transform(matrix.codes.begin(), matrix.codes.end(), std::back_inserter(result),
                   [](std::uint8_t code) { return std::bit_cast<float>(std::uint32_t{code}); });
    for (std::size_t i = 0; i < matrix.scale.size(); i += 2) {
      matrix.scale[i] = 1e-38F;  // y among the denormals
    }
    std::vector<float> w(w_.size());
    dequantize(kernels(), parallel, matrix.view(), w.data());
    result.insert(result.end(), w.begin(), w.end());

    const PackedLinear layer(kernels(), parallel, matrix.view());
    for (const Norm norm : {Norm::none, Norm::rms}) {
      QuantizedBatch batch(kTokens, kInputs);
      norm_quant(kernels(), parallel,
                 {.x = x_.data(),
                  .tokens = kTokens,
                  .in_features = kInputs,
                  .x_stride = kInputs,
                  .norm = norm,
                  .norm_weight = w_.data(),
                  .eps = 1e-40F,
                  .q = batch.q.data(),
                  .scale = batch.scale.data(),
                  .rstd = batch.rstd.data(),
                  .q_sum = batch.q_sum.data()});
      std::vector<float> y(kTokens * kRows);
      layer.product(parallel, batch.rows(), nullptr, DataType::float32, y.data());
      std::vector<std::uint16_t> half(y.size());
      layer.product(parallel, batch.rows(), nullptr, DataType::float16, half.data());
      for (const std::vector<float>& part : {batch.scale, batch.rstd, y}) {
        result.insert(result.end(), part.begin(), part.end());
      }
      std::transform(half.begin(), half.end(), std::back_inserter(result),
                     [](std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits}); });
      std::transform(batch.q.begin(), batch.q.end(), std::back_inserter(result),
                     [](std::int8_t code) { return std::bit_cast<float>(static_cast<std::int32_t>(code)); });
    }
    return result;
  }

  std::vector<float> w_, x_;
};

TEST_P(EnvironmentTest, TheCallersChangesNothing) {
  const auto one = make_parallel(1);
  const auto three = make_parallel(3);
  CarelessParallel careless;
  const std::vector<float> wanted = everything(*one);
  for (const unsigned bits : {kFlushToZero, kDenormalsAreZero, kRoundDown, kRoundToZero,
                              kFlushToZero | kDenormalsAreZero | kRoundDown}) {
    for (Parallel* parallel : {one.get(), three.get(), static_cast<Parallel*>(&careless)}) {
      const Environment environment(kDefault | bits);
      const std::vector<float> found = everything(*parallel);
      const unsigned after = _mm_getcsr() & ~0x3fU;  // without the sticky exception flags
      _mm_setcsr(kDefault);
      EXPECT_EQ(after, kDefault | bits);
      ASSERT_TRUE(std::equal(found.begin(), found.end(), wanted.begin(), wanted.end(),
                             [](float a, float b) { return same_bits(a, b); }))
          << std::hex << bits << " with " << parallel->threads() << " threads";
      ++cases_;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, EnvironmentTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test
#endif

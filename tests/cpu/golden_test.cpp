// SPDX-License-Identifier: MIT
//
// The golden case of docs/numerics.md through every backend: the same bits.
#include <limits>

#include "cpu/support.h"
#include "format/golden_case.h"

namespace trit::test {
namespace {

class GoldenKernelTest : public KernelTest {
 protected:
  TernaryMatrix pack(ScaleGranularity granularity) const {
    const bool per_row = granularity == ScaleGranularity::row;
    TernaryMatrix matrix{5, 600, std::vector<std::uint8_t>(5 * 150), std::vector<float>(per_row ? 5 : 1)};
    absmean(kernels(), *parallel_, golden_.w.data(), 5, 600, granularity, matrix.scale.data());
    ternarize_pack(kernels(), *parallel_, golden_.w.data(), 5, 600, granularity, matrix.scale.data(),
                   matrix.codes.data());
    return matrix;
  }
  QuantizedBatch quantize(Norm norm, std::int64_t group = 0) const {
    QuantizedBatch batch(3, 600);
    batch.group = group;
    batch.scale.resize(static_cast<std::size_t>(3 * groups_of(600, group)));
    norm_quant(kernels(), *parallel_,
               {.x = golden_.x.data(),
                .tokens = 3,
                .in_features = 600,
                .x_stride = 600,
                .norm = norm,
                .norm_weight = golden_.norm_weight.data(),
                .eps = golden_.eps,
                .q = batch.q.data(),
                .scale = batch.scale.data(),
                .rstd = batch.rstd.data(),
                .q_sum = batch.q_sum.data(),
                .group = group});
    return batch;
  }
  template <typename Value = float>
  std::vector<Value> forward(Norm norm, ScaleGranularity granularity, bool bias,
                             DataType type = DataType::float32) const {
    std::vector<Value> y(15);
    const QuantizedBatch batch = quantize(norm);
    PackedLinear(kernels(), *parallel_, pack(granularity).view())
        .product(*parallel_, batch.rows(), bias ? golden_.bias.data() : nullptr, type, y.data());
    return y;
  }

  GoldenCase golden_;
  std::unique_ptr<Parallel> parallel_ = make_parallel(1);
};

template <typename Value, std::size_t kSize>
std::vector<Value> wanted(const std::array<Value, kSize>& bits) {
  return {bits.begin(), bits.end()};
}

TEST_P(GoldenKernelTest, Weights) {
  EXPECT_EQ(bits_of(pack(ScaleGranularity::tensor).scale), std::vector<Bits>{kGoldenBeta});
  EXPECT_EQ(bits_of(pack(ScaleGranularity::row).scale), wanted(kGoldenRowBeta));
  EXPECT_EQ(pack(ScaleGranularity::tensor).codes,
            trit::pack(golden_.w, 5, 600, ScaleGranularity::tensor).codes);
}

TEST_P(GoldenKernelTest, NormQuant) {
  const QuantizedBatch batch = quantize(Norm::rms);
  EXPECT_EQ(bits_of(batch.rstd), wanted(kGoldenRstd));
  EXPECT_EQ(bits_of(batch.scale), wanted(kGoldenScale));
  EXPECT_EQ(batch.q_sum, std::vector<std::int32_t>(kGoldenCodeSums.begin(), kGoldenCodeSums.end()));
  EXPECT_TRUE(std::equal(kGoldenCodes.begin(), kGoldenCodes.end(), batch.q.begin()));
}

TEST_P(GoldenKernelTest, Layer) {
  EXPECT_EQ(bits_of(forward(Norm::rms, ScaleGranularity::tensor, true)), wanted(kGoldenY));
  EXPECT_EQ(bits_of(forward(Norm::none, ScaleGranularity::tensor, false)), wanted(kGoldenYPlain));
  EXPECT_EQ(bits_of(forward(Norm::rms, ScaleGranularity::row, false)), wanted(kGoldenYPerRow));
  std::vector<std::uint16_t> half =
      forward<std::uint16_t>(Norm::rms, ScaleGranularity::tensor, true, DataType::bfloat16);
  half.resize(5);
  EXPECT_EQ(half, wanted(kGoldenYBfloat16));
  half = forward<std::uint16_t>(Norm::rms, ScaleGranularity::tensor, true, DataType::float16);
  half.resize(5);
  EXPECT_EQ(half, wanted(kGoldenYFloat16));
}

TEST_P(GoldenKernelTest, GroupScales) {
  TernaryMatrix matrix{5, 600, std::vector<std::uint8_t>(5 * 150), std::vector<float>(25), kGoldenGroup};
  absmean(kernels(), *parallel_, golden_.w.data(), 5, 600, ScaleGranularity::group, matrix.scale.data(),
          kGoldenGroup);
  EXPECT_EQ(bits_of(matrix.scale), wanted(kGoldenGroupBeta));
  ternarize_pack(kernels(), *parallel_, golden_.w.data(), 5, 600, ScaleGranularity::group,
                 matrix.scale.data(), matrix.codes.data(), kGoldenGroup);
  const PackedLinear layer(kernels(), *parallel_, matrix.view());
  std::vector<float> y(15);
  layer.product(*parallel_, quantize(Norm::rms).rows(), golden_.bias.data(), DataType::float32, y.data());
  EXPECT_EQ(bits_of(y), wanted(kGoldenGroupY));
  const QuantizedBatch groups = quantize(Norm::rms, kGoldenGroup);
  EXPECT_EQ(bits_of(groups.scale), wanted(kGoldenGroupScale));
  layer.product(*parallel_, groups.rows(), golden_.bias.data(), DataType::float32, y.data());
  EXPECT_EQ(bits_of(y), wanted(kGoldenGroupYTokenGroups));
}

TEST_P(GoldenKernelTest, BadRows) {
  golden_.x[2 * 600] = 1e20F;
  const std::vector<float> huge = forward(Norm::none, ScaleGranularity::tensor, true);
  EXPECT_EQ(bits_of({huge.begin() + 10, huge.end()}), wanted(kGoldenYHuge));
  golden_.x[3] = std::numeric_limits<float>::quiet_NaN();
  golden_.x[600 + 7] = -std::numeric_limits<float>::infinity();
  for (const float value : forward(Norm::rms, ScaleGranularity::tensor, true)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, GoldenKernelTest, testing::ValuesIn(available_rows()), row_name);

}  // namespace
}  // namespace trit::test

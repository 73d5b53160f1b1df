// SPDX-License-Identifier: MIT
//
// Prepared weights in memory of the caller's: the bits of PackedLinear, for every layout of every backend,
// and bytes that are something else.
#include "trit/prepared.h"

#include "base/buffer.h"
#include "cpu/support.h"
#include "trit/error.h"

namespace trit::test {
namespace {

class PreparedTest : public LayoutTest {
 protected:
  AlignedBuffer prepared(const TernaryMatrix& matrix) {
    const PanelFormat format = layout().format;
    AlignedBuffer bytes(
        prepared_bytes(kernels(), format, matrix.out_features, matrix.in_features, matrix.group));
    prepare_weight(kernels(), *parallel_, matrix.view(), format, {bytes.data(), bytes.size()});
    return bytes;
  }
  std::vector<float> run(std::span<const std::uint8_t> bytes, const TernaryMatrix& matrix,
                         const QuantizedBatch& batch, const std::vector<float>& bias) {
    std::vector<float> y(static_cast<std::size_t>(batch.tokens * matrix.out_features));
    product(kernels(), *parallel_,
            {.prepared = bytes,
             .out_features = matrix.out_features,
             .in_features = matrix.in_features,
             .weight_scale = matrix.scale,
             .x = batch.rows(),
             .bias = bias.empty() ? nullptr : bias.data(),
             .y = y.data(),
             .group = matrix.group});
    return y;
  }
  std::string error_of(std::span<const std::uint8_t> bytes, const TernaryMatrix& matrix) {
    try {
      run(bytes, matrix, QuantizedBatch(1, matrix.in_features), {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::unique_ptr<Parallel> parallel_ = make_parallel(3);
};

TEST_P(PreparedTest, SameBitsAsPackedLinear) {
  for (int i = 0; i < random_cases(60); ++i, ++cases_) {
    TernaryMatrix matrix = random_matrix(uniform(1, 200), uniform(1, 700), uniform(0, 1) == 0);
    if (uniform(0, 1) == 0) {
      matrix.group = kGroupStep * uniform(1, 6);
      matrix.scale.resize(
          static_cast<std::size_t>(matrix.out_features * groups_of(matrix.in_features, matrix.group)));
      // float16 where all are, and now and then beyond what a kernel may scale.
      const bool half = uniform(0, 1) == 0;
      const bool extreme = uniform(0, 3) == 0;
      for (float& scale : matrix.scale) {
        scale = std::abs(normal()) * (extreme ? 1e-38F : 1.0F) + 1e-6F;
        scale = half ? float16_to_float(float_to_float16(scale)) + (scale < 1e-3F ? 1.0F : 0.0F) : scale;
      }
    }
    QuantizedBatch batch(uniform(0, 40), matrix.in_features);
    for (std::int64_t m = 0; m < batch.tokens; ++m) {
      for (std::int64_t k = 0; k < matrix.in_features; ++k) {
        const auto q = static_cast<std::int8_t>(uniform(-128, 127));
        batch.q[static_cast<std::size_t>(m * padded_in_features(matrix.in_features) + k)] = q;
        batch.q_sum[static_cast<std::size_t>(m)] += q;
      }
      batch.scale[static_cast<std::size_t>(m)] = normal();
    }
    std::vector<float> bias(uniform(0, 1) == 0 ? 0 : static_cast<std::size_t>(matrix.out_features));
    std::generate(bias.begin(), bias.end(), [&] { return normal(); });
    std::vector<float> wanted(static_cast<std::size_t>(batch.tokens * matrix.out_features));
    PackedLinear(kernels(), *parallel_, matrix.view(), layout().format)
        .product(*parallel_, batch.rows(), bias.empty() ? nullptr : bias.data(), DataType::float32,
                 wanted.data());
    const AlignedBuffer bytes = prepared(matrix);
    EXPECT_TRUE(same_bits(run({bytes.data(), bytes.size()}, matrix, batch, bias), wanted))
        << matrix.out_features << " x " << matrix.in_features << ", groups of " << matrix.group << ", "
        << batch.tokens << " tokens";
  }
}

TEST_P(PreparedTest, OtherBytesAreRefused) {
  const TernaryMatrix matrix = random_matrix(70, 30, false);
  const AlignedBuffer buffer = prepared(matrix);
  const std::span<std::uint8_t> bytes(buffer.data(), buffer.size());
  EXPECT_EQ(error_of(bytes, matrix), "");
  EXPECT_NE(error_of(bytes.first(40), matrix).find("40 bytes, fewer than its header has"), std::string::npos);
  EXPECT_NE(error_of(bytes.first(bytes.size() - 1), matrix).find("wanted"), std::string::npos);
  TernaryMatrix other = random_matrix(70, 31, false);
  EXPECT_NE(error_of(bytes, other).find("these bytes hold [70, 30]"), std::string::npos);
  for (const CpuKernels* row : available_rows()) {
    if (row != &kernels()) {
      AlignedBuffer foreign(prepared_bytes(*row, PanelFormat::automatic, 70, 30));
      prepare_weight(*row, *parallel_, matrix.view(), PanelFormat::automatic,
                     {foreign.data(), foreign.size()});
      EXPECT_NE(error_of({foreign.data(), foreign.size()}, matrix).find("prepared for the backend"),
                std::string::npos);
    }
  }
  bytes[0] ^= 1;
  EXPECT_NE(error_of(bytes, matrix).find("not made by prepare_weight"), std::string::npos);
  bytes[0] ^= 1;
  TernaryMatrix grouped = matrix;
  grouped.group = 32;
  grouped.scale.assign(70, 0.5F);
  EXPECT_NE(error_of(bytes, grouped).find("wanted groups of 32"), std::string::npos);
  const AlignedBuffer with_groups = prepared(grouped);
  EXPECT_EQ(error_of({with_groups.data(), with_groups.size()}, grouped), "");
  EXPECT_NE(error_of({with_groups.data(), with_groups.size()}, matrix).find("for groups of 32 inputs"),
            std::string::npos);
  grouped.scale.pop_back();
  EXPECT_THROW(prepared(grouped), Error);
  grouped.group = 30;
  EXPECT_THROW(prepared(grouped), Error);
  EXPECT_THROW(prepared_bytes(kernels(), layout().format, 1, 1 << 24), Error);
  EXPECT_THROW(
      prepare_weight(kernels(), *parallel_, matrix.view(), layout().format, bytes.first(bytes.size() - 1)),
      Error);
}

INSTANTIATE_TEST_SUITE_P(Layouts, PreparedTest, testing::ValuesIn(available_layouts()), layout_name);

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// The small case of docs/numerics.md, end to end on the GPU's kernels.
#include <limits>

#include "cuda/support.h"
#include "format/golden_case.h"

namespace trit::test {
namespace {

class CudaGoldenTest : public CudaTest {
 protected:
  static constexpr std::int64_t kN = GoldenCase::out_features;
  static constexpr std::int64_t kK = GoldenCase::in_features;
  static constexpr std::int64_t kM = GoldenCase::tokens;

  // W, x, g, bias -> y, each step on the device.
  template <typename Element = float>
  std::vector<Element> layer(const GoldenCase& golden, Norm norm, bool with_bias,
                             ScaleGranularity granularity, DataType type = DataType::float32) {
    ++cases_;
    const cuda::Device device = largest_device();
    const DeviceArray<float> w{std::span<const float>(golden.w)};
    const DeviceArray<float> x{std::span<const float>(golden.x)};
    const DeviceArray<float> g{std::span<const float>(golden.norm_weight)};
    const DeviceArray<float> bias{std::span<const float>(golden.bias)};
    const DeviceArray<float> scale(granularity == ScaleGranularity::row ? static_cast<std::size_t>(kN) : 1);
    const DeviceArray<std::uint8_t> workspace(cuda::absmean_workspace_bytes(kN));
    const DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(kN * packed_row_bytes(kK)));
    const DeviceArray<std::uint8_t> weights(cuda::weight_bytes(kN, kK));
    const DeviceArray<std::int8_t> q(static_cast<std::size_t>(kM * cuda::quantized_row_bytes(kK)));
    const DeviceArray<float> token_scale(static_cast<std::size_t>(kM));
    const DeviceArray<Element> y(static_cast<std::size_t>(kM * kN));
    cuda::absmean(w.data(), kN, kK, granularity, scale.data(), workspace.data(), nullptr);
    cuda::ternarize_pack(w.data(), kN, kK, granularity, scale.data(), codes.data(), nullptr);
    cuda::prepare_weights(codes.data(), kN, kK, weights.data(), nullptr);
    cuda::norm_quant(device,
                     {.x = x.data(),
                      .tokens = kM,
                      .in_features = kK,
                      .x_stride = kK,
                      .norm = norm,
                      .norm_weight = g.data(),
                      .eps = GoldenCase::eps,
                      .q = q.data(),
                      .scale = token_scale.data()},
                     nullptr);
    cuda::product(device,
                  {.weights = weights.data(),
                   .out_features = kN,
                   .in_features = kK,
                   .q = q.data(),
                   .token_scale = token_scale.data(),
                   .tokens = kM,
                   .weight_scale = scale.data(),
                   .granularity = granularity,
                   .bias = with_bias ? bias.data() : nullptr,
                   .y_type = type,
                   .y = y.data()},
                  nullptr);
    return values_of(y);
  }
  template <std::size_t count>
  static std::vector<Bits> list(const std::array<Bits, count>& bits) {
    return {bits.begin(), bits.end()};
  }
};

TEST_F(CudaGoldenTest, Layer) {
  const GoldenCase golden;
  EXPECT_EQ(bits_of(layer(golden, Norm::rms, true, ScaleGranularity::tensor)), list(kGoldenY));
  EXPECT_EQ(bits_of(layer(golden, Norm::none, false, ScaleGranularity::tensor)), list(kGoldenYPlain));
  EXPECT_EQ(bits_of(layer(golden, Norm::rms, false, ScaleGranularity::row)), list(kGoldenYPerRow));
}

TEST_F(CudaGoldenTest, HalfOutputs) {
  const GoldenCase golden;
  for (const auto& [type, wanted] :
       {std::pair{DataType::bfloat16, kGoldenYBfloat16}, {DataType::float16, kGoldenYFloat16}}) {
    std::vector<std::uint16_t> y =
        layer<std::uint16_t>(golden, Norm::rms, true, ScaleGranularity::tensor, type);
    y.resize(kN);
    EXPECT_EQ(y, std::vector<std::uint16_t>(wanted.begin(), wanted.end())) << name_of(type);
  }
}

TEST_F(CudaGoldenTest, Groups) {
  const GoldenCase golden;
  const cuda::Device device = largest_device();
  const DeviceArray<float> w{std::span<const float>(golden.w)};
  const DeviceArray<float> x{std::span<const float>(golden.x)};
  const DeviceArray<float> g{std::span<const float>(golden.norm_weight)};
  const DeviceArray<float> bias{std::span<const float>(golden.bias)};
  const DeviceArray<float> scale(kGoldenGroupBeta.size());
  const DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(kN * packed_row_bytes(kK)));
  const DeviceArray<std::uint8_t> weights(cuda::weight_bytes(kN, kK));
  const DeviceArray<float> prepared(cuda::group_scale_bytes(kN, kK, kGoldenGroup, DataType::float32) / 4);
  cuda::pack_weights(device,
                     {.w = w.data(),
                      .out_features = kN,
                      .in_features = kK,
                      .granularity = ScaleGranularity::group,
                      .group = kGoldenGroup,
                      .scale = scale.data(),
                      .codes = codes.data(),
                      .weights = weights.data(),
                      .group_scale = prepared.data()},
                     nullptr);
  EXPECT_EQ(bits_of(values_of(scale)), list(kGoldenGroupBeta));
  for (const bool token_groups : {false, true}) {
    const DeviceArray<std::int8_t> q(static_cast<std::size_t>(kM * cuda::quantized_row_bytes(kK)));
    const DeviceArray<float> token_scale(kGoldenGroupScale.size());
    const DeviceArray<float> y(static_cast<std::size_t>(kM * kN));
    cuda::norm_quant(device,
                     {.x = x.data(),
                      .tokens = kM,
                      .in_features = kK,
                      .x_stride = kK,
                      .norm = Norm::rms,
                      .norm_weight = g.data(),
                      .eps = GoldenCase::eps,
                      .q = q.data(),
                      .scale = token_scale.data(),
                      .group = token_groups ? kGoldenGroup : 0},
                     nullptr);
    cuda::product(
        device,
        {.weights = weights.data(),
         .out_features = kN,
         .in_features = kK,
         .q = q.data(),
         .token_scale = token_scale.data(),
         .tokens = kM,
         .weight_scale = nullptr,
         .granularity = ScaleGranularity::group,
         .bias = bias.data(),
         .y = y.data(),
         .group = kGoldenGroup,
         .group_scale = prepared.data(),
         .token_scales = token_groups ? TokenScaleGranularity::group : TokenScaleGranularity::token},
        nullptr);
    if (token_groups) {
      EXPECT_EQ(bits_of(values_of(token_scale)), list(kGoldenGroupScale));
    }
    EXPECT_EQ(bits_of(values_of(y)), list(token_groups ? kGoldenGroupYTokenGroups : kGoldenGroupY));
    ++cases_;
  }
}

TEST_F(CudaGoldenTest, BadAndHugeRows) {
  GoldenCase golden;
  golden.x[3] = std::numeric_limits<float>::quiet_NaN();
  golden.x[600 + 7] = -std::numeric_limits<float>::infinity();
  golden.x[1200] = 1e20F;
  for (const float y : layer(golden, Norm::rms, true, ScaleGranularity::tensor)) {
    EXPECT_TRUE(std::isnan(y));
  }
  const std::vector<Bits> y = bits_of(layer(golden, Norm::none, true, ScaleGranularity::tensor));
  EXPECT_EQ(std::vector<Bits>(y.begin() + 2 * kN, y.end()), list(kGoldenYHuge));
}

}  // namespace
}  // namespace trit::test

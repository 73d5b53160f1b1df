// SPDX-License-Identifier: MIT
//
// A layer of LibTorch on a GPU without LibTorch (src/torch/cuda/layer.h): what it packs, prepares and multiplies,
// with every granularity of scales, against the definition; and its backward.
#include "torch/cuda/layer.h"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "cuda/support.h"
#include "torch/cuda/kernels.h"
#include "torch/layer.h"
#include "torch/norm_rows.h"

namespace trit::test {
namespace {

namespace launches = torch_layer::cuda;

class CudaLayerTest : public CudaTest {
 protected:
  /// 0, or the inputs of a group.
  std::int64_t any_group() { return uniform(0, 2) == 0 ? 0 : 32 * uniform(1, 6); }
  std::vector<float> weights(std::int64_t count) {
    std::vector<float> w = normals(count);
    for (float& value : w) {
      value *= uniform(0, 20) == 0 ? 1e-6F : 0.02F;
    }
    return w;
  }
};

TEST_F(CudaLayerTest, ForwardHasTheBitsOfTheDefinition) {
  const DeviceArray<std::int32_t> counter{std::span<const std::int32_t>(std::array<std::int32_t, 1>{0})};
  for (int i = 0; i < rounds(60) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const cuda::Device device = largest_device();
    const std::int64_t n = size_near(64, 150);
    const std::int64_t k = i % 8 == 0 ? uniform(1, 40) : size_near(128, 600);
    const std::int64_t tokens = std::array{1, 2, 9, 20}[static_cast<std::size_t>(uniform(0, 3))];
    const std::int64_t group = any_group();
    const bool per_row = group == 0 && uniform(0, 1) == 0;
    const bool rms = uniform(0, 1) == 0;
    SCOPED_TRACE("M, N, K, group = " + std::to_string(tokens) + ", " + std::to_string(n) + ", " +
                 std::to_string(k) + ", " + std::to_string(group));
    const ScaleGranularity granularity = torch_layer::wanted_granularity(per_row, group);
    const std::vector<float> w = weights(n * k);
    const TernaryMatrix wanted = pack(w, n, k, granularity, group);

    // One launch for scales, codes and the prepared weight; the latter again from the codes.
    const DeviceArray<float> device_w{std::span<const float>(w)};
    const DeviceArray<float> scale(wanted.scale.size());
    const DeviceArray<std::uint8_t> codes(wanted.codes.size());
    const DeviceArray<std::uint8_t> packed(launches::packing_bytes(n, k, per_row, group));
    cuda::Device few = device;  // the emulator holds the blocks of a cooperative launch all at once
    few.multiprocessors = static_cast<int>(uniform(1, 3));
    launches::pack(
        few,
        {device_w.data(), n, k, per_row, group, scale.data(), codes.data(), packed.data(), counter.data()},
        nullptr);
    ASSERT_TRUE(same_bits(values_of(scale), wanted.scale));
    ASSERT_EQ(values_of(codes), wanted.codes);
    const std::size_t bytes = launches::prepared_bytes(n, k, group);
    const DeviceArray<std::uint8_t> prepared(bytes);
    launches::prepare(
        torch_layer::ternary_view(n, k, codes.data(), scale.data(), std::ssize(wanted.scale), group),
        prepared.data(), nullptr);
    std::vector<std::uint8_t> from_floats = values_of(packed);
    from_floats.resize(bytes);
    ASSERT_EQ(values_of(prepared), from_floats);

    const std::vector<float> x = normals(tokens * k);
    const std::vector<float> norm_weight = normals(k);
    const std::vector<float> bias = normals(n);
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<float> device_norm{std::span<const float>(norm_weight)};
    const DeviceArray<float> device_bias{std::span<const float>(bias)};
    const DeviceArray<std::int8_t> q(static_cast<std::size_t>(tokens * cuda::quantized_row_bytes(k)));
    const DeviceArray<float> token_scale(static_cast<std::size_t>(tokens));
    const DeviceArray<float> y(static_cast<std::size_t>(tokens * n));
    const std::vector<std::uint8_t> zeros(cuda::product_workspace_bytes(device, tokens, n, k, group));
    const DeviceArray<std::uint8_t> workspace{std::span<const std::uint8_t>(zeros)};
    constexpr double kEps = 1e-6;
    cuda::norm_quant(
        device,
        torch_layer::norm_quant_arguments<cuda::NormQuant>({device_x.data(), DataType::float32, tokens, k, k},
                                                           {rms, rms ? device_norm.data() : nullptr, kEps},
                                                           q.data(), token_scale.data(), nullptr),
        nullptr);
    launches::product(device, {prepared.data(), n, k, scale.data(), granularity, group},
                      {q.data(), token_scale.data(), nullptr, tokens}, device_bias.data(), DataType::float32,
                      y.data(), workspace.data(), /*programmatic=*/false, nullptr);
    std::vector<float> expected(static_cast<std::size_t>(tokens * n));
    for (std::int64_t token = 0; token < tokens; ++token) {
      bit_linear_row(
          std::span(x).subspan(static_cast<std::size_t>(token * k), static_cast<std::size_t>(k)),
          wanted.view(), rms ? Norm::rms : Norm::none,
          rms ? std::span<const float>(norm_weight) : std::span<const float>(), static_cast<float>(kEps),
          bias,
          std::span(expected).subspan(static_cast<std::size_t>(token * n), static_cast<std::size_t>(n)));
    }
    ASSERT_TRUE(same_bits(values_of(y), expected));
    ++cases_;
  }
}

TEST_F(CudaLayerTest, TilesOfTheWeight) {
  for (int i = 0; i < rounds(60) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const std::int64_t n = uniform(1, 40);
    const std::int64_t k = uniform(1, 400);
    const std::int64_t group = any_group();
    const ScaleGranularity granularity = torch_layer::wanted_granularity(uniform(0, 1) == 0, group);
    const TernaryMatrix matrix = pack(weights(n * k), n, k, granularity, group);
    const DeviceArray<std::uint8_t> codes{std::span<const std::uint8_t>(matrix.codes)};
    const DeviceArray<float> scale{std::span<const float>(matrix.scale)};
    // Without scales the codes themselves.
    const bool scaled = uniform(0, 3) != 0;
    const TernaryView view = torch_layer::ternary_view(n, k, codes.data(), scaled ? scale.data() : nullptr,
                                                       scaled ? std::ssize(matrix.scale) : 0, group);
    const std::int64_t first = uniform(0, (k - 1) / 4) * 4;
    const std::int64_t columns = uniform(1, k - first);
    const DeviceArray<float> tile(static_cast<std::size_t>(n * columns));
    launches::dequantize(view, first, columns, DataType::float32, tile.data(), nullptr);
    std::vector<float> wanted;
    std::vector<std::int8_t> t(static_cast<std::size_t>(k));
    const std::int64_t groups = groups_of(k, group);
    for (std::int64_t row = 0; row < n; ++row) {
      unpack_row(std::span(matrix.codes)
                     .subspan(static_cast<std::size_t>(row * packed_row_bytes(k)),
                              static_cast<std::size_t>(packed_row_bytes(k))),
                 t);
      for (std::int64_t column = first; column < first + columns; ++column) {
        const std::int64_t of_row = group == 0 ? 0 : column / group;
        const std::size_t at = matrix.scale.size() == 1 ? 0 : static_cast<std::size_t>(row * groups + of_row);
        wanted.push_back(static_cast<float>(t[static_cast<std::size_t>(column)]) *
                         (scaled ? matrix.scale[at] : 1.0F));
      }
    }
    ASSERT_TRUE(same_bits(values_of(tile), wanted)) << n << " x " << k << ", groups of " << group;
    ++cases_;
  }
}

// By the kernel of one pass, or by those of two: dL/dx has the CPU's bits, dL/dg another order of sums.
TEST_F(CudaLayerTest, NormBackwardIsTheCpus) {
  const auto parallel = make_parallel(1);
  for (int i = 0; i < rounds(40) && !HasFatalFailure(); ++i) {
    use_policy(i);
    const DataType type = i % 2 == 0 ? DataType::float32 : DataType::bfloat16;
    const std::int64_t rows = uniform(0, 40);
    const std::int64_t features = uniform(0, 1) == 0 ? 8 * uniform(1, 60) : uniform(1, 500);
    const auto size = static_cast<std::size_t>(rows * features);
    const auto values = [&] {
      std::vector<float> drawn = normals(rows * features);
      for (float& value : drawn) {
        value = type == DataType::float32 ? value : bfloat16_to_float(float_to_bfloat16(value));
      }
      return drawn;
    };
    const std::vector<float> grad = values();
    const std::vector<float> x = values();
    const std::vector<float> weight = normals(features);
    std::vector<float> rstd = normals(rows);
    std::vector<float> grad_x(size);
    std::vector<float> grad_weight(static_cast<std::size_t>(features));
    torch_layer::rms_norm_backward_rows(std::move(*parallel),
                                        {grad.data(), x.data(), weight.data(), rstd.data(), rows, features,
                                         grad_x.data(), grad_weight.data()});

    const auto stored = [&](const std::vector<float>& from) {
      std::vector<std::uint8_t> bytes(from.size() * size_of(type));
      for (std::size_t at = 0; at < from.size(); ++at) {
        const std::uint16_t bits = float_to_bfloat16(from[at]);
        type == DataType::float32 ? std::memcpy(bytes.data() + 4 * at, &from[at], 4)
                                  : std::memcpy(bytes.data() + 2 * at, &bits, 2);
      }
      return bytes;
    };
    const DeviceArray<std::uint8_t> device_grad{std::span<const std::uint8_t>(stored(grad))};
    const DeviceArray<std::uint8_t> device_x{std::span<const std::uint8_t>(stored(x))};
    const DeviceArray<float> device_weight{std::span<const float>(weight)};
    const DeviceArray<float> device_rstd{std::span<const float>(rstd)};
    cuda::NormBackward args{device_grad.data(),   device_x.data(),   type, rows, features,
                            device_weight.data(), device_rstd.data()};
    args.parts = launches::norm_backward_parts(args);
    const DeviceArray<std::uint8_t> found_x(size * size_of(type));
    const DeviceArray<float> found_weight(static_cast<std::size_t>(args.parts * features));
    args.grad_x = found_x.data();
    args.grad_norm_weight = found_weight.data();
    launches::norm_backward(largest_device(), args, nullptr);
    ASSERT_EQ(values_of(found_x), stored(grad_x)) << rows << " x " << features;
    const std::vector<float> partial = values_of(found_weight);
    for (std::int64_t column = 0; column < features; ++column) {
      float sum = 0;
      float magnitude = 1e-6F;
      for (std::int64_t part = 0; part < args.parts; ++part) {
        sum += partial[static_cast<std::size_t>(part * features + column)];
      }
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto at = static_cast<std::size_t>(row * features + column);
        magnitude += std::fabs(grad[at] * x[at] * rstd[static_cast<std::size_t>(row)]);
      }
      ASSERT_NEAR(sum, grad_weight[static_cast<std::size_t>(column)], 1e-5F * magnitude);
    }
    ++cases_;
  }
}

}  // namespace
}  // namespace trit::test

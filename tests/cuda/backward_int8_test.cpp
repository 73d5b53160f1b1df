// SPDX-License-Identifier: MIT
//
// The 8-bit backward (trit/cuda_backward.h) against its definition in scalar code (trit/gradient.h): bits.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuda/backward/gradient_weight.h"
#include "cuda/support.h"
#include "trit/cuda_backward.h"
#include "trit/format.h"
#include "trit/gradient.h"

namespace trit::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::array kTypes = {DataType::bfloat16, DataType::float16, DataType::float32};

// Values of a type as the bytes that a kernel reads, and as floats.
struct Typed {
  std::vector<std::uint8_t> bytes;
  std::vector<float> values;
};

class CudaBackwardInt8Test : public CudaTest {
 protected:
  Typed typed(DataType type, const std::vector<float>& wanted) {
    Typed found{std::vector<std::uint8_t>(wanted.size() * size_of(type)), wanted};
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (type == DataType::float32) {
        std::memcpy(found.bytes.data() + 4 * i, &wanted[i], 4);
        continue;
      }
      const std::uint16_t bits =
          type == DataType::bfloat16 ? float_to_bfloat16(wanted[i]) : float_to_float16(wanted[i]);
      found.values[i] = type == DataType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
      std::memcpy(found.bytes.data() + 2 * i, &bits, 2);
    }
    return found;
  }

  // NaN equals NaN; everything else by the bits of the result's type.
  void expect_bits(const std::vector<std::uint8_t>& found, DataType type, const std::vector<float>& wanted,
                   std::int64_t columns, const char* what) {
    const Typed expected = typed(type, wanted);
    const std::size_t size = size_of(type);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (std::memcmp(found.data() + i * size, expected.bytes.data() + i * size, size) == 0) {
        continue;
      }
      float value = 0;
      if (type == DataType::float32) {
        std::memcpy(&value, found.data() + 4 * i, 4);
      } else {
        std::uint16_t bits = 0;
        std::memcpy(&bits, found.data() + 2 * i, 2);
        value = type == DataType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
      }
      ASSERT_TRUE(std::isnan(value) && std::isnan(wanted[i]))
          << what << "[" << static_cast<std::int64_t>(i) / columns << "]["
          << static_cast<std::int64_t>(i) % columns << "] is " << value << ", wanted " << wanted[i];
    }
  }

  // dY whose rows and columns differ in size by powers of two, now and then with a bad, tiny or zero row.
  std::vector<float> gradients(std::int64_t tokens, std::int64_t outputs) {
    std::vector<float> values(static_cast<std::size_t>(tokens * outputs));
    for (std::int64_t m = 0; m < tokens; ++m) {
      const float size = std::ldexp(1.0F, static_cast<int>(uniform(-12, 3)));
      for (std::int64_t n = 0; n < outputs; ++n) {
        values[static_cast<std::size_t>(m * outputs + n)] = size * normal();
      }
    }
    const auto row = static_cast<std::size_t>(uniform(0, tokens - 1) * outputs);
    const auto place = row + static_cast<std::size_t>(uniform(0, outputs - 1));
    switch (uniform(0, 7)) {
      case 0:
        values[place] = kNan;
        break;
      case 1:
        values[place] = -kInfinity;
        break;
      case 2:
        std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(row), outputs, 0.0F);
        break;
      case 3:
        std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(row), outputs, 0x1p-126F);
        break;
      case 4:  // the extremes: all of the same magnitude
        std::fill(values.begin(), values.end(), 1.0F);
        break;
      default:
        break;
    }
    return values;
  }
};

TEST_F(CudaBackwardInt8Test, HasTheBitsOfTheDefinition) {
  const cuda::Device device = largest_device();
  const int count = rounds(48);
  for (int round = 0; round < count; ++round) {
    use_policy(round);
    const DataType type = kTypes[static_cast<std::size_t>(round % 3)];
    const std::int64_t tokens = size_near(128, 300);
    const std::int64_t outputs = uniform(0, 2) == 0 ? size_near(64, 300) : 8 * size_near(8, 36);
    const std::int64_t inputs = size_near(64, 300);
    const bool per_row = outputs > 1 && uniform(0, 2) == 0;  // one scale is one of the tensor
    const bool stochastic = uniform(0, 2) == 0;
    const GradientRounding rounding{stochastic, random_(), random_()};
    const cuda::GpuGradientRounding gpu_rounding{
        .stochastic = stochastic, .seed = rounding.seed, .offset = rounding.offset};
    cuda::GpuGradientRounding weight_rounding = gpu_rounding;
    weight_rounding.offset += 1;
    SCOPED_TRACE(testing::Message() << "M = " << tokens << ", N = " << outputs << ", K = " << inputs << ", "
                                    << name_of(type) << (per_row ? ", scales per row" : "")
                                    << (stochastic ? ", stochastic" : "") << ", seed " << run_seed());
    const Typed grad_host = typed(type, gradients(tokens, outputs));
    std::vector<std::int8_t> t(static_cast<std::size_t>(outputs * inputs));
    std::vector<std::uint8_t> codes_host(static_cast<std::size_t>(outputs * packed_row_bytes(inputs)));
    for (auto& weight : t) {
      weight = static_cast<std::int8_t>(uniform(-1, 1));
    }
    for (std::int64_t n = 0; n < outputs; ++n) {
      pack_row(std::span(t).subspan(static_cast<std::size_t>(n * inputs), static_cast<std::size_t>(inputs)),
               std::span(codes_host)
                   .subspan(static_cast<std::size_t>(n * packed_row_bytes(inputs)),
                            static_cast<std::size_t>(packed_row_bytes(inputs))));
    }
    std::vector<float> beta = normals(per_row ? outputs : 1);
    std::vector<std::int8_t> q(static_cast<std::size_t>(tokens * inputs));
    const std::int64_t q_row_bytes = cuda::quantized_row_bytes(inputs);
    std::vector<std::int8_t> q_rows(static_cast<std::size_t>(tokens * q_row_bytes));
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] = static_cast<std::int8_t>(uniform(-128, 127));
      q_rows[i / static_cast<std::size_t>(inputs) * static_cast<std::size_t>(q_row_bytes) +
             i % static_cast<std::size_t>(inputs)] = q[i];
    }
    std::vector<float> s = normals(tokens);
    const GradientProblem problem{.grad = grad_host.values,
                                  .t = t,
                                  .weight_scale = beta,
                                  .q = q,
                                  .token_scale = s,
                                  .tokens = tokens,
                                  .out_features = outputs,
                                  .in_features = inputs,
                                  .rounding = rounding};

    const DeviceArray<std::uint8_t> grad(grad_host.bytes);
    const DeviceArray<std::uint8_t> codes(codes_host);
    const DeviceArray<float> weight_scale(beta);
    const DeviceArray<float> one(std::vector<float>{1.0F});
    const DeviceArray<float> token_scale(s);
    const DeviceArray<std::int8_t> activations(q_rows);
    const auto bytes = [](std::int64_t size) {
      return std::vector<std::int8_t>(static_cast<std::size_t>(size), std::int8_t{0x55});
    };
    const DeviceArray<std::int8_t> grad_rows(bytes(tokens * cuda::quantized_row_bytes(outputs)));
    const DeviceArray<float> grad_scale(std::vector<float>(static_cast<std::size_t>(tokens), kNan));
    const DeviceArray<std::uint32_t> maxima(
        std::vector<std::uint32_t>(static_cast<std::size_t>(outputs), 0U));
    cuda::quantize_gradient_rows(device,
                                 {.grad = grad.data(),
                                  .type = type,
                                  .tokens = tokens,
                                  .out_features = outputs,
                                  .weight_scale = per_row ? weight_scale.data() : nullptr,
                                  .rounding = gpu_rounding,
                                  .q = grad_rows.data(),
                                  .scale = grad_scale.data(),
                                  .token_scale = token_scale.data(),
                                  .maxima = maxima.data()},
                                 nullptr);

    // dX
    const DeviceArray<std::uint8_t> weights(
        std::vector<std::uint8_t>(cuda::weight_bytes(inputs, outputs), 0x55));
    cuda::prepare_transposed_int8(codes.data(), outputs, inputs, weights.data(), nullptr);
    const DeviceArray<std::uint8_t> workspace(std::vector<std::uint8_t>(
        std::max<std::size_t>(cuda::product_workspace_bytes(device, tokens, inputs, outputs), 16), 0));
    const DeviceArray<std::uint8_t> grad_x(
        std::vector<std::uint8_t>(static_cast<std::size_t>(tokens * inputs) * size_of(type), 0xA5));
    cuda::product(device,
                  {.weights = weights.data(),
                   .out_features = inputs,
                   .in_features = outputs,
                   .q = grad_rows.data(),
                   .token_scale = grad_scale.data(),
                   .tokens = tokens,
                   .weight_scale = per_row ? one.data() : weight_scale.data(),
                   .y_type = type,
                   .y = grad_x.data(),
                   .workspace = workspace.data()},
                  nullptr);
    std::vector<float> wanted_x(static_cast<std::size_t>(tokens * inputs));
    gradient_input_int8(problem, wanted_x);
    expect_bits(values_of(grad_x), type, wanted_x, inputs, "dX");

    // dW: the operands, transposed both ways, then the product.
    const std::int64_t row_bytes = cuda::gradient_row_bytes(tokens);
    const DeviceArray<std::int8_t> grad_columns(bytes(outputs * row_bytes));
    const DeviceArray<float> output_scale(std::vector<float>(static_cast<std::size_t>(outputs), kNan));
    cuda::quantize_gradient_outputs({.grad = grad.data(),
                                     .type = type,
                                     .tokens = tokens,
                                     .out_features = outputs,
                                     .token_scale = token_scale.data(),
                                     .maxima = maxima.data(),
                                     .rounding = weight_rounding,
                                     .q = grad_columns.data(),
                                     .scale = output_scale.data()},
                                    nullptr);
    const DeviceArray<std::int8_t> transposed(bytes(inputs * row_bytes));
    cuda::TransposeActivations transpose{.q = activations.data(),
                                         .row_bytes = q_row_bytes,
                                         .tokens = tokens,
                                         .in_features = inputs,
                                         .transposed = transposed.data()};
    cuda::transpose_activations(transpose, nullptr);
    std::vector<float> wanted_w(static_cast<std::size_t>(outputs * inputs));
    gradient_weight_int8(problem, wanted_w);
    const auto left = values_of(grad_columns);
    const auto right = values_of(transposed);
    const auto scales = values_of(output_scale);
    std::vector<float> plain(wanted_w.size());
    for (std::int64_t n = 0; n < outputs; ++n) {
      for (std::int64_t k = 0; k < inputs; ++k) {
        std::int32_t sum = 0;
        for (std::int64_t m = 0; m < row_bytes; ++m) {
          sum += std::int32_t{left[static_cast<std::size_t>(n * row_bytes + m)]} *
                 right[static_cast<std::size_t>(k * row_bytes + m)];
        }
        plain[static_cast<std::size_t>(n * inputs + k)] =
            static_cast<float>(sum) * scales[static_cast<std::size_t>(n)];
      }
    }
    std::vector<std::uint8_t> plain_bytes = typed(DataType::float32, plain).bytes;
    expect_bits(plain_bytes, DataType::float32, wanted_w, inputs, "dW from the operands");
    if (cuda::gradient_weight_fits(device)) {
      const DeviceArray<std::int8_t> tiles(
          bytes(static_cast<std::int64_t>(cuda::transposed_activation_bytes(tokens, inputs))));
      transpose.tiles = true;
      transpose.transposed = tiles.data();
      cuda::transpose_activations(transpose, nullptr);
      const DataType weight_type = kTypes[static_cast<std::size_t>(uniform(0, 2))];
      const DeviceArray<std::uint8_t> grad_w(
          std::vector<std::uint8_t>(static_cast<std::size_t>(outputs * inputs) * size_of(weight_type), 0xA5));
      const cuda::GradientWeight args{.grad = grad_columns.data(),
                                      .scale = output_scale.data(),
                                      .tiles = tiles.data(),
                                      .tokens = tokens,
                                      .out_features = outputs,
                                      .in_features = inputs,
                                      .type = weight_type,
                                      .grad_weight = grad_w.data()};
      constexpr std::array<std::array<std::int32_t, 2>, 4> kTiles = {
          {{128, 256}, {256, 128}, {128, 192}, {128, 128}}};
      const auto& tile = kTiles[static_cast<std::size_t>(round % 4)];
      uniform(0, 1) == 0 ? cuda::gradient_weight(device, args, nullptr)
                         : cuda::gradient_weight(device, args, tile[0], tile[1], nullptr);
      expect_bits(values_of(grad_w), weight_type, wanted_w, inputs, "dW");
    }
    ++cases_;
  }
}

// Long rows: two and four steps of a thread, groups of rows, more rows than blocks.
TEST_F(CudaBackwardInt8Test, LongRowsHaveTheScalesAndCodesOfTheDefinition) {
  cuda::Device device = largest_device();
  device.multiprocessors = 2;
  const int count = rounds(8);
  for (int round = 0; round < count; ++round) {
    use_policy(round);
    const DataType type = kTypes[static_cast<std::size_t>(round % 2)];
    const std::int64_t tokens = uniform(1, 19);
    const std::int64_t outputs = 8 * uniform(1, 2100);
    SCOPED_TRACE(testing::Message() << tokens << " x " << outputs << ", " << name_of(type) << ", seed "
                                    << run_seed());
    const Typed grad_host = typed(type, gradients(tokens, outputs));
    const std::vector<float> s = normals(tokens);
    const DeviceArray<std::uint8_t> grad(grad_host.bytes);
    const DeviceArray<float> token_scale(s);
    const std::int64_t row_bytes = cuda::quantized_row_bytes(outputs);
    const DeviceArray<std::int8_t> q(
        std::vector<std::int8_t>(static_cast<std::size_t>(tokens * row_bytes), 1));
    const DeviceArray<float> scale(std::vector<float>(static_cast<std::size_t>(tokens)));
    const DeviceArray<std::uint32_t> maxima(
        std::vector<std::uint32_t>(static_cast<std::size_t>(outputs), 0U));
    cuda::quantize_gradient_rows(device,
                                 {.grad = grad.data(),
                                  .type = type,
                                  .tokens = tokens,
                                  .out_features = outputs,
                                  .q = q.data(),
                                  .scale = scale.data(),
                                  .token_scale = token_scale.data(),
                                  .maxima = maxima.data()},
                                 nullptr);
    const auto magnitude = [](float v) { return std::bit_cast<std::uint32_t>(v) & 0x7fffffffU; };
    std::vector<std::uint32_t> columns(static_cast<std::size_t>(outputs));
    const auto found_q = values_of(q);
    const auto found_scale = values_of(scale);
    for (std::int64_t m = 0; m < tokens; ++m) {
      std::uint32_t largest = 0;
      for (std::int64_t n = 0; n < outputs; ++n) {
        const float v = grad_host.values[static_cast<std::size_t>(m * outputs + n)];
        largest = std::max(largest, magnitude(v));
        auto& column = columns[static_cast<std::size_t>(n)];
        column = std::max(column, magnitude(v * s[static_cast<std::size_t>(m)]));
      }
      const GradientScale wanted = gradient_scale(std::bit_cast<float>(largest));
      const float found = found_scale[static_cast<std::size_t>(m)];
      ASSERT_TRUE(found == wanted.scale || (std::isnan(found) && std::isnan(wanted.scale))) << "row " << m;
      for (std::int64_t n = 0; n < row_bytes; ++n) {
        const std::int8_t code =
            n < outputs && wanted.factor > 0
                ? round_gradient(grad_host.values[static_cast<std::size_t>(m * outputs + n)], wanted.factor)
                : std::int8_t{0};
        ASSERT_EQ(found_q[static_cast<std::size_t>(m * row_bytes + n)], code) << "row " << m << ", " << n;
      }
    }
    const auto found_maxima = values_of(maxima);
    for (std::int64_t n = 0; n < outputs; ++n) {
      const std::uint32_t found = found_maxima[static_cast<std::size_t>(n)];
      const std::uint32_t wanted = columns[static_cast<std::size_t>(n)];
      // A NaN's payload is not defined.
      ASSERT_TRUE(found == wanted || (found > 0x7f800000U && wanted > 0x7f800000U)) << "output " << n;
    }
    ++cases_;
  }
}

TEST_F(CudaBackwardInt8Test, RefusesWhatItCannotTake) {
  const DeviceArray<std::int8_t> memory(std::vector<std::int8_t>(4096));
  const DeviceArray<float> scale(std::vector<float>(64));
  cuda::Device device{.compute_capability = 80, .multiprocessors = 108, .shared_bytes = 166912};
  cuda::GradientWeight args{.grad = memory.data(),
                            .scale = scale.data(),
                            .tiles = memory.data(),
                            .tokens = 4,
                            .out_features = 3,
                            .in_features = 2,
                            .grad_weight = memory.data()};
  EXPECT_THROW(cuda::gradient_weight(device, args, nullptr), Error);
  device.compute_capability = 90;
  args.tokens = kMaxGradientTokens + 1;
  EXPECT_THROW(cuda::gradient_weight(device, args, nullptr), Error);
  args.tokens = 4;
  args.grad = memory.data() + 8;
  EXPECT_THROW(cuda::gradient_weight(device, args, nullptr), Error);
  EXPECT_THROW(
      cuda::transpose_activations(
          {.q = memory.data(), .row_bytes = 1, .tokens = 1, .in_features = 2, .transposed = memory.data()},
          nullptr),
      Error);
  EXPECT_THROW(
      cuda::quantize_gradient_rows(
          device, {.grad = memory.data(), .tokens = 1, .out_features = 8, .q = memory.data() + 1}, nullptr),
      Error);
}

}  // namespace
}  // namespace trit::test

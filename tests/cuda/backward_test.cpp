// SPDX-License-Identifier: MIT
//
// The kernels of a layer's backward (trit/cuda_backward.h) against the plain formulas in double.
#include "trit/cuda_backward.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuda/support.h"
#include "torch/row_kernels.h"
#include "trit/format.h"

namespace trit::test {
namespace {

constexpr DataType kTypes[] = {DataType::bfloat16, DataType::float16};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::uint16_t bits_of(DataType type, float value) {
  return type == DataType::bfloat16 ? float_to_bfloat16(value) : float_to_float16(value);
}
float float_of(DataType type, std::uint16_t bits) {
  return type == DataType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}
double unit(DataType type) { return type == DataType::bfloat16 ? 0x1p-8 : 0x1p-11; }

class CudaBackwardTest : public CudaTest {
 protected:
  std::vector<std::uint16_t> halves(DataType type, std::int64_t count) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    for (auto& value : values) {
      value = bits_of(type, normal());
    }
    return values;
  }
  std::vector<std::uint8_t> codes(std::int64_t rows, std::int64_t columns, std::vector<std::int8_t>& t) {
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(rows * packed_row_bytes(columns)));
    t.resize(static_cast<std::size_t>(rows * columns));
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const auto value = static_cast<std::int8_t>(uniform(-1, 1));
      t[static_cast<std::size_t>(i)] = value;
      const std::int64_t row = i / columns;
      const std::int64_t column = i % columns;
      auto& byte = stored[static_cast<std::size_t>(row * packed_row_bytes(columns) + column / 4)];
      byte = static_cast<std::uint8_t>(byte | (value & 3) << (2 * (column % 4)));
    }
    return stored;
  }
};

TEST_F(CudaBackwardTest, GradientInput) {
  const cuda::Device device = largest_device();
  if (device.compute_capability != 90) {
    GTEST_SKIP() << "compute capability " << device.compute_capability << ", the kernel is for 90";
  }
  const int count = rounds(24);
  for (int i = 0; i < count; ++i) {
    use_policy(i);
    const DataType type = kTypes[i % 2];
    const std::int64_t tokens = size_near(128, 300);
    const std::int64_t outputs = 8 * size_near(8, 40);
    const std::int64_t inputs = size_near(64, 400);
    const bool scaled = uniform(0, 3) != 0;
    const float beta = scaled ? 0.037F : 1.0F;
    SCOPED_TRACE(testing::Message() << "M = " << tokens << ", N = " << outputs << ", K = " << inputs << ", "
                                    << name_of(type) << ", seed " << run_seed());
    std::vector<std::int8_t> t;
    const DeviceArray<std::uint8_t> stored(codes(outputs, inputs, t));
    std::vector<std::uint16_t> grad_host = halves(type, tokens * outputs);
    const bool with_nan = uniform(0, 3) == 0;
    const std::int64_t bad_token = uniform(0, tokens - 1);
    if (with_nan) {
      grad_host[static_cast<std::size_t>(bad_token * outputs + uniform(0, outputs - 1))] =
          bits_of(type, kNan);
    }
    const DeviceArray<std::uint16_t> grad(grad_host);
    const DeviceArray<float> scale(std::vector<float>{beta});
    const DeviceArray<std::uint8_t> weights(
        std::vector<std::uint8_t>(cuda::transposed_weight_bytes(outputs, inputs), 0xA5));
    const DeviceArray<std::uint16_t> grad_x(
        std::vector<std::uint16_t>(static_cast<std::size_t>(tokens * inputs), 0xA5A5));
    cuda::prepare_transposed(stored.data(), outputs, inputs, weights.data(), nullptr);
    cuda::gradient_input(device,
                         {.grad = grad.data(),
                          .type = type,
                          .tokens = tokens,
                          .out_features = outputs,
                          .in_features = inputs,
                          .weights = weights.data(),
                          .scale = scaled ? scale.data() : nullptr,
                          .grad_x = grad_x.data()},
                         nullptr);
    const std::vector<std::uint16_t> found = values_of(grad_x);
    for (std::int64_t m = 0; m < tokens; ++m) {
      for (std::int64_t k = 0; k < inputs; ++k) {
        double sum = 0;
        double magnitude = 0;
        for (std::int64_t n = 0; n < outputs; ++n) {
          const double product =
              double{float_of(type, grad_host[static_cast<std::size_t>(m * outputs + n)])} *
              t[static_cast<std::size_t>(n * inputs + k)];
          sum += product;
          magnitude += std::abs(product);
        }
        const double value = float_of(type, found[static_cast<std::size_t>(m * inputs + k)]);
        if (with_nan && m == bad_token) {
          ASSERT_TRUE(std::isnan(value)) << "token " << m << ", input " << k;  // NaN * 0 is NaN too
        } else {
          // fp32 sums, then one rounding of the result.
          const double bound =
              beta * (magnitude * static_cast<double>(outputs) * 0x1p-24 + std::abs(sum) * unit(type)) + 1e-7;
          ASSERT_NEAR(value, beta * sum, bound) << "token " << m << ", input " << k;
        }
      }
    }
    ++cases_;
  }
}

TEST_F(CudaBackwardTest, GradientInputRefusesWhatItCannotTake) {
  const DeviceArray<std::uint16_t> memory(std::vector<std::uint16_t>(4096));
  const DeviceArray<std::uint8_t> weights(std::vector<std::uint8_t>(4096));
  cuda::GradientInput args{.grad = memory.data(),
                           .type = DataType::bfloat16,
                           .tokens = 2,
                           .out_features = 16,
                           .in_features = 8,
                           .weights = weights.data(),
                           .grad_x = memory.data()};
  cuda::Device device{.compute_capability = 90, .multiprocessors = 132, .shared_bytes = 232448};
  EXPECT_TRUE(cuda::gradient_input_fits(device, args));
  args.out_features = 12;
  EXPECT_THROW(cuda::gradient_input(device, args, nullptr), Error);
  args.out_features = 16;
  args.type = DataType::float32;
  EXPECT_THROW(cuda::gradient_input(device, args, nullptr), Error);
  args.type = DataType::float16;
  args.grad = memory.data() + 1;
  EXPECT_THROW(cuda::gradient_input(device, args, nullptr), Error);
  args.grad = memory.data();
  args.weights = weights.data() + 8;
  EXPECT_FALSE(cuda::gradient_input_fits(device, args));
  args.weights = nullptr;  // not prepared yet
  EXPECT_TRUE(cuda::gradient_input_fits(device, args));
  EXPECT_THROW(cuda::gradient_input(device, args, nullptr), Error);
  args.weights = weights.data();
  device.compute_capability = 80;
  EXPECT_THROW(cuda::gradient_input(device, args, nullptr), Error);
}

TEST_F(CudaBackwardTest, NormBackward) {
  const int count = rounds(40);
  for (int i = 0; i < count; ++i) {
    use_policy(i);
    const DataType type = kTypes[i % 2];
    const std::int64_t tokens = uniform(1, 9);
    // Up to four steps of 512 threads.
    const std::int64_t inputs = 8 * (uniform(0, 3) == 0 ? uniform(1, 2048) : size_near(32, 300));
    const std::int64_t parts = uniform(1, tokens + 1);
    const bool weighted = uniform(0, 1) != 0;
    const bool weight_wanted = uniform(0, 3) != 0;
    const bool input_wanted = !weight_wanted || uniform(0, 3) != 0;
    SCOPED_TRACE(testing::Message() << tokens << " x " << inputs << ", " << parts << " parts, "
                                    << name_of(type) << ", seed " << run_seed());
    const auto grad_host = halves(type, tokens * inputs);
    const auto x_host = halves(type, tokens * inputs);
    const auto g = normals(inputs);
    auto rstd_host = normals(tokens);
    const DeviceArray<std::uint16_t> grad(grad_host);
    const DeviceArray<std::uint16_t> x(x_host);
    const DeviceArray<float> weight(g);
    const DeviceArray<float> rstd(rstd_host);
    const DeviceArray<std::uint16_t> grad_x(
        std::vector<std::uint16_t>(static_cast<std::size_t>(tokens * inputs), 0xA5A5));
    const DeviceArray<float> grad_weight(std::vector<float>(static_cast<std::size_t>(parts * inputs), kNan));
    cuda::Device device = largest_device();
    device.shared_bytes = i % 3 == 0 ? 99 * 1024 : device.shared_bytes;
    cuda::norm_backward(device,
                        {.grad = grad.data(),
                         .x = x.data(),
                         .type = type,
                         .tokens = tokens,
                         .in_features = inputs,
                         .norm_weight = weighted ? weight.data() : nullptr,
                         .rstd = rstd.data(),
                         .grad_x = input_wanted ? grad_x.data() : nullptr,
                         .grad_norm_weight = weight_wanted ? grad_weight.data() : nullptr,
                         .parts = parts},
                        nullptr);
    const auto found_x = values_of(grad_x);
    const auto found_weight = values_of(grad_weight);
    std::vector<double> sums(static_cast<std::size_t>(inputs));
    std::vector<double> magnitudes(static_cast<std::size_t>(inputs));
    const auto row_of = [&](const std::vector<std::uint16_t>& from, std::int64_t row) {
      std::vector<float> values;
      for (std::int64_t k = 0; k < inputs; ++k) {
        values.push_back(float_of(type, from[static_cast<std::size_t>(row * inputs + k)]));
      }
      return values;
    };
    for (std::int64_t row = 0; row < tokens; ++row) {
      const auto u = row_of(grad_host, row);
      const auto values = row_of(x_host, row);
      const float r = rstd_host[static_cast<std::size_t>(row)];
      std::vector<float> wanted(static_cast<std::size_t>(inputs));
      torch_layer::rms_norm_backward_row(u.data(), values.data(), weighted ? g.data() : nullptr, r, inputs,
                                         wanted.data(), nullptr);
      for (std::int64_t k = 0; k < inputs; ++k) {
        const auto at = static_cast<std::size_t>(k);
        if (input_wanted) {
          ASSERT_EQ(found_x[static_cast<std::size_t>(row * inputs + k)], bits_of(type, wanted[at]))
              << "row " << row << ", input " << k;
        }
        const double product = double{u[at]} * values[at] * r;
        sums[at] += product;
        magnitudes[at] += std::abs(product);
      }
    }
    if (weight_wanted) {
      for (std::int64_t k = 0; k < inputs; ++k) {
        double sum = 0;
        for (std::int64_t part = 0; part < parts; ++part) {
          sum += found_weight[static_cast<std::size_t>(part * inputs + k)];
        }
        const auto at = static_cast<std::size_t>(k);
        ASSERT_NEAR(sum, sums[at], magnitudes[at] * static_cast<double>(tokens + 3) * 0x1p-23)
            << "input " << k;
      }
    }
    ++cases_;
  }
}

TEST_F(CudaBackwardTest, DequantizeRows) {
  const int count = rounds(40);
  for (int i = 0; i < count; ++i) {
    use_policy(i);
    const DataType type =
        std::array{DataType::float32, DataType::bfloat16, DataType::float16}[static_cast<std::size_t>(i % 3)];
    const std::int64_t tokens = uniform(1, 20);
    const std::int64_t inputs = uniform(0, 1) == 0 ? 16 * uniform(1, 20) : uniform(1, 300);
    const std::int64_t row_bytes = (inputs + 15) / 16 * 16;
    SCOPED_TRACE(testing::Message() << tokens << " x " << inputs << ", " << name_of(type) << ", seed "
                                    << run_seed());
    std::vector<std::int8_t> q(static_cast<std::size_t>(tokens * row_bytes));
    for (auto& code : q) {
      code = static_cast<std::int8_t>(uniform(-128, 127));
    }
    auto scales = normals(tokens);
    scales[static_cast<std::size_t>(uniform(0, tokens - 1))] = kNan;
    const DeviceArray<std::int8_t> codes(q);
    const DeviceArray<float> scale(scales);
    const DeviceArray<std::uint8_t> x(
        std::vector<std::uint8_t>(static_cast<std::size_t>(tokens * inputs) * size_of(type), 0xA5));
    cuda::dequantize_rows({.q = codes.data(),
                           .row_bytes = row_bytes,
                           .scale = scale.data(),
                           .tokens = tokens,
                           .in_features = inputs,
                           .type = type,
                           .x = x.data()},
                          nullptr);
    const auto found = values_of(x);
    for (std::int64_t j = 0; j < tokens * inputs; ++j) {
      const float wanted =
          static_cast<float>(q[static_cast<std::size_t>(j / inputs * row_bytes + j % inputs)]) *
          scales[static_cast<std::size_t>(j / inputs)];
      float value = 0;
      if (type == DataType::float32) {
        std::memcpy(&value, found.data() + 4 * j, 4);
        ASSERT_TRUE(value == wanted || (std::isnan(value) && std::isnan(wanted))) << "element " << j;
      } else {
        std::uint16_t bits = 0;
        std::memcpy(&bits, found.data() + 2 * j, 2);
        ASSERT_TRUE(bits == bits_of(type, wanted) || (std::isnan(float_of(type, bits)) && std::isnan(wanted)))
            << "element " << j;
      }
    }
    ++cases_;
  }
}

}  // namespace
}  // namespace trit::test

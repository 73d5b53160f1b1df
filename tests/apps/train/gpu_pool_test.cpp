// SPDX-License-Identifier: MIT
//
// The fused ReLU and maximum pool of a GPU's training step on tensors with NaN, infinities, -0.0 and
// denormals: the bits of LibTorch's operators on a CPU, and the gradient to the input that they choose. By
// the emulator, or, built for it, on a GPU.
#include "cuda/special_values.h"
#include "cuda/support.h"
#include "train_cifar10/gpu/kernels.h"

namespace trit::test {
namespace {

constexpr std::uint8_t kNone = 4;  // no gradient (relu_pool.h)

class GpuPool : public CudaTest {
 protected:
  template <typename Element>
  void check(DataType type, const std::vector<Element>& x, const std::vector<float>& values,
             std::int64_t rows, std::int64_t columns, std::int64_t channels) {
    const auto outputs = static_cast<std::size_t>(rows * columns * channels);
    const auto dy = special_values(random_, outputs, 0.1);
    std::vector<Element> y(outputs), gradient(outputs), dx(4 * outputs, Element{0});
    std::vector<std::uint8_t> choice(outputs);
    const auto width = static_cast<std::size_t>(2 * columns * channels);
    for (std::size_t i = 0; i < outputs; ++i) {
      const std::size_t c = i % static_cast<std::size_t>(channels);
      const std::size_t column = i / static_cast<std::size_t>(channels) % static_cast<std::size_t>(columns);
      const std::size_t row = i / static_cast<std::size_t>(channels * columns);
      const std::size_t first = 2 * row * width + 2 * column * static_cast<std::size_t>(channels) + c;
      const std::array<std::size_t, 4> at{first, first + static_cast<std::size_t>(channels), first + width,
                                          first + width + static_cast<std::size_t>(channels)};
      const auto relu = [&](std::size_t n) { return values[at[n]] < 0 ? 0.0F : values[at[n]]; };
      std::size_t best = 0;
      for (std::size_t n = 1; n < 4; ++n) {
        best = relu(n) > relu(best) || std::isnan(relu(n)) ? n : best;
      }
      choice[i] = relu(best) <= 0 ? kNone : static_cast<std::uint8_t>(best);
      y[i] = from_float<Element>(type, relu(best));
      gradient[i] = from_float<Element>(type, dy[i]);
      if (choice[i] != kNone) {
        dx[at[best]] = gradient[i];
      }
    }
    const DeviceArray<Element> device_x{std::span<const Element>(x)}, device_y(outputs);
    const DeviceArray<Element> device_dy{std::span<const Element>(gradient)}, device_dx(4 * outputs);
    const DeviceArray<std::uint8_t> device_choice(outputs);
    train::gpu::relu_max_pool({.type = type,
                               .rows = rows,
                               .columns = columns,
                               .channels = channels,
                               .x = device_x.data(),
                               .y = device_y.data(),
                               .choice = device_choice.data()},
                              nullptr);
    expect_same(values_of(device_y), y, type);
    ASSERT_EQ(values_of(device_choice), choice);
    train::gpu::relu_max_pool_backward({.type = type,
                                        .rows = rows,
                                        .columns = columns,
                                        .channels = channels,
                                        .dy = device_dy.data(),
                                        .choice = device_choice.data(),
                                        .dx = device_dx.data()},
                                       nullptr);
    expect_same(values_of(device_dx), dx, type);
    ++cases_;
  }

  template <typename Element>
  static Element from_float(DataType type, float value) {
    if constexpr (std::is_same_v<Element, float>) {
      return value;
    } else {
      return to_half(type, value);
    }
  }
  template <typename Element>
  static float to_float(DataType type, Element value) {
    if constexpr (std::is_same_v<Element, float>) {
      return value;
    } else {
      return from_half(type, value);
    }
  }
  /// Equal bits; any NaN equals any NaN.
  template <typename Element>
  static void expect_same(const std::vector<Element>& found, const std::vector<Element>& wanted,
                          DataType type) {
    ASSERT_EQ(found.size(), wanted.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      const float a = to_float(type, found[i]), b = to_float(type, wanted[i]);
      ASSERT_TRUE((std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b)))
          << "value " << i << ": " << a << ", wanted " << b;
    }
  }
};

TEST_F(GpuPool, ReluAndMaximumPassSpecialValues) {
  for (int i = 0; i < rounds(2000); ++i) {
    use_policy(i);
    const std::int64_t rows = uniform(1, 4), columns = uniform(1, 4), channels = uniform(1, 9);
    const auto count = static_cast<std::size_t>(4 * rows * columns * channels);
    const std::vector<float> x = special_values(random_, count, uniform(0, 1) == 0 ? 0.05 : 0.5);
    if (i % 2 == 0) {
      ASSERT_NO_FATAL_FAILURE(check(DataType::float32, x, x, rows, columns, channels)) << "case " << i;
      continue;
    }
    const DataType type = i % 4 == 1 ? DataType::bfloat16 : DataType::float16;
    std::vector<std::uint16_t> half(count);
    std::vector<float> rounded(count);
    for (std::size_t n = 0; n < count; ++n) {
      half[n] = to_half(type, x[n]);
      rounded[n] = from_half(type, half[n]);
    }
    ASSERT_NO_FATAL_FAILURE(check(type, half, rounded, rows, columns, channels)) << "case " << i;
  }
}

}  // namespace
}  // namespace trit::test

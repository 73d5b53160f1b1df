// SPDX-License-Identifier: MIT
//
// The float kernels of the backend cuda on tensors with NaN, infinities, -0.0 and denormals: the bits of
// LibTorch's operators on a CPU, written out below. By the emulator, or, built for it, on a GPU.
#include "runtime/cuda/kernels.h"

#include "cuda/special_values.h"
#include "cuda/support.h"
#include "runtime/same_bits.h"
#include "trit/rotation.h"

namespace trit::test {
namespace {

float relu_of(float v) { return v < 0 ? 0.0F : v; }
/// at::max_pool2d: a NaN wins, among equal values (0.0 and -0.0) the first.
void take_larger(float& largest, float v) {
  if (v > largest || std::isnan(v)) {
    largest = v;
  }
}

class CudaKernels : public CudaTest {
 protected:
  std::vector<float> tensor(std::int64_t count) {
    constexpr std::array kShares{0.0, 0.05, 0.5};
    return special_values(random_, static_cast<std::size_t>(count),
                          kShares[static_cast<std::size_t>(uniform(0, 2))]);
  }
  void expect(const DeviceArray<float>& found, const std::vector<float>& wanted) {
    expect_same_bits(values_of(found), wanted);
    ++cases_;
  }
};

TEST_F(CudaKernels, BiasAndReluPassSpecialValues) {
  for (int i = 0; i < rounds(3000); ++i) {
    use_policy(i);
    const std::int64_t channels = uniform(1, 5);
    const std::int64_t plane = uniform(1, 30);
    const std::int64_t count = uniform(1, 3) * channels * plane;
    const bool relu = uniform(0, 3) != 0;
    const bool has_bias = uniform(0, 1) != 0;
    const std::vector<float> x = tensor(count);
    const std::vector<float> bias = tensor(channels);
    std::vector<float> wanted = x;
    for (std::size_t n = 0; n < wanted.size(); ++n) {
      if (has_bias) {
        wanted[n] += bias[n / static_cast<std::size_t>(plane) % static_cast<std::size_t>(channels)];
      }
      wanted[n] = relu ? relu_of(wanted[n]) : wanted[n];
    }
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<float> device_bias{std::span<const float>(bias)};
    const DeviceArray<float> y(x.size());
    runtime::gpu::bias_relu({.x = device_x.data(),
                             .y = y.data(),
                             .count = count,
                             .channels = channels,
                             .plane = plane,
                             .bias = has_bias ? device_bias.data() : nullptr,
                             .relu = relu},
                            nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(y, wanted)) << "case " << i;
  }
}

TEST_F(CudaKernels, AddPassesSpecialValues) {
  for (int i = 0; i < rounds(3000); ++i) {
    use_policy(i);
    const std::int64_t count = uniform(1, 500);
    const std::vector<float> a = tensor(count);
    const std::vector<float> b = tensor(count);
    std::vector<float> wanted(a.size());
    std::ranges::transform(a, b, wanted.begin(), std::plus<>());
    const DeviceArray<float> device_a{std::span<const float>(a)};
    const DeviceArray<float> device_b{std::span<const float>(b)};
    const DeviceArray<float> y(a.size());
    runtime::gpu::add(device_a.data(), device_b.data(), y.data(), count, nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(y, wanted)) << "case " << i;
  }
}

TEST_F(CudaKernels, ScaleAndShiftPassSpecialValues) {
  for (int i = 0; i < rounds(1000); ++i) {
    use_policy(i);
    const std::int64_t channels = uniform(1, 5);
    const std::int64_t plane = uniform(1, 30);
    const std::int64_t count = uniform(1, 3) * channels * plane;
    const std::vector<float> x = tensor(count);
    const std::vector<float> scale = tensor(channels);
    const std::vector<float> shift = tensor(channels);
    std::vector<float> wanted = x;
    for (std::size_t n = 0; n < wanted.size(); ++n) {
      const std::size_t channel = n / static_cast<std::size_t>(plane) % static_cast<std::size_t>(channels);
      wanted[n] = x[n] * scale[channel] + shift[channel];
    }
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<float> device_scale{std::span<const float>(scale)};
    const DeviceArray<float> device_shift{std::span<const float>(shift)};
    const DeviceArray<float> y(x.size());
    runtime::gpu::scale_shift({.x = device_x.data(),
                               .y = y.data(),
                               .count = count,
                               .channels = channels,
                               .plane = plane,
                               .scale = device_scale.data(),
                               .shift = device_shift.data()},
                              nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(y, wanted)) << "case " << i;
  }
}

/// Within the bound of runtime/ops/gelu.h; a NaN or an infinity where the formula has one.
TEST_F(CudaKernels, GeluIsItsFormula) {
  for (int i = 0; i < rounds(200); ++i) {
    use_policy(i);
    std::vector<float> x = tensor(uniform(1, 500));
    for (float& v : x) {
      v = std::isfinite(v) && i % 2 == 0 ? std::fmod(v, 6.0F) : v;
    }
    const bool by_tanh = i % 4 < 2;
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<float> device_y(x.size());
    runtime::gpu::gelu({.x = device_x.data(), .y = device_y.data(), .count = std::ssize(x), .tanh = by_tanh},
                       nullptr);
    const std::vector<float> y = values_of(device_y);
    for (std::size_t n = 0; n < x.size(); ++n) {
      const auto v = static_cast<double>(x[n]);
      const double inner = by_tanh
                               ? std::tanh(std::sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v))
                               : std::erf(v * std::sqrt(0.5));
      const double wanted = 0.5 * v * (1 + inner);
      const double error = 5 * std::ldexp(std::fabs(v), -24) + std::ldexp(1.0, -149);
      const auto found = static_cast<double>(y[n]);
      ASSERT_TRUE(std::isnan(wanted)   ? std::isnan(found)
                  : std::isinf(wanted) ? found == wanted
                                       : std::fabs(found - wanted) <= error)
          << "gelu of " << x[n] << " is " << found << ", wanted " << wanted;
    }
    ++cases_;
  }
}

/// A pool of `kernel` x `kernel` windows over values that bias and ReLU have made.
std::vector<float> pooled(const runtime::gpu::Pool& pool, const std::vector<float>& x,
                          const std::vector<float>& bias) {
  std::vector<float> y;
  for (std::int64_t plane = 0; plane < pool.images * pool.channels; ++plane) {
    for (int row = 0; row < pool.out_height; ++row) {
      for (int column = 0; column < pool.out_width; ++column) {
        float largest = -std::numeric_limits<float>::infinity();
        float sum = 0;
        for (int n = 0; n < pool.kernel * pool.kernel; ++n) {
          const int from_row = row * pool.stride + n / pool.kernel;
          const int from_column = column * pool.stride + n % pool.kernel;
          float v = x[static_cast<std::size_t>((plane * pool.height + from_row) * pool.width + from_column)];
          v = pool.bias != nullptr ? v + bias[static_cast<std::size_t>(plane % pool.channels)] : v;
          v = pool.relu ? relu_of(v) : v;
          take_larger(largest, v);
          sum += v;
        }
        y.push_back(pool.maximum ? largest : sum / static_cast<float>(pool.kernel * pool.kernel));
      }
    }
  }
  return y;
}

TEST_F(CudaKernels, PoolsPassSpecialValues) {
  for (int i = 0; i < rounds(4000); ++i) {
    use_policy(i);
    runtime::gpu::Pool pool{};
    pool.images = uniform(1, 2);
    pool.channels = static_cast<int>(uniform(1, 4));
    pool.kernel = static_cast<int>(uniform(1, 3));
    pool.stride = static_cast<int>(uniform(1, 3));
    pool.height = pool.kernel + static_cast<int>(uniform(0, 5));
    pool.width = pool.kernel + static_cast<int>(uniform(0, 5));
    pool.out_height = (pool.height - pool.kernel) / pool.stride + 1;
    pool.out_width = (pool.width - pool.kernel) / pool.stride + 1;
    pool.maximum = uniform(0, 2) != 0;
    pool.relu = pool.maximum && uniform(0, 1) != 0;
    const std::vector<float> x = tensor(pool.images * pool.channels * pool.height * pool.width);
    const std::vector<float> bias = tensor(pool.channels);
    const DeviceArray<float> device_x{std::span<const float>(x)};
    const DeviceArray<float> device_bias{std::span<const float>(bias)};
    pool.bias = pool.maximum && uniform(0, 1) != 0 ? device_bias.data() : nullptr;
    const std::vector<float> wanted = pooled(pool, x, bias);
    const DeviceArray<float> y(wanted.size());
    pool.x = device_x.data();
    pool.y = y.data();
    runtime::gpu::pool(pool, nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(y, wanted)) << "case " << i;
  }
}

TEST_F(CudaKernels, LookUpsHaveTheBitsOfTheCpu) {
  const auto parallel = make_parallel(1);
  for (int i = 0; i < rounds(150); ++i) {
    use_policy(i);
    const std::int64_t block =
        std::array{0, 0, 512, 1024, 2048, 4096}[static_cast<std::size_t>(uniform(0, 5))];
    const std::int64_t features = block == 0 ? size_near(1024, 2100) : block * uniform(1, 8192 / block / 2);
    const std::int64_t rows = uniform(1, 9);
    const auto scales = static_cast<int>(uniform(0, 2));  // of the table, the rows, groups
    const std::int64_t group = scales == 2 ? 32 * uniform(1, 6) : 0;
    const std::int64_t step = scales == 0 ? 0 : groups_of(features, group);
    TernaryMatrix table{rows, features, {}, {}, group};
    std::vector<std::int8_t> t(static_cast<std::size_t>(features));
    for (std::int64_t row = 0; row < rows; ++row) {
      std::ranges::generate(t, [&] { return static_cast<std::int8_t>(uniform(-1, 1)); });
      const auto at = static_cast<std::ptrdiff_t>(table.codes.size());
      table.codes.resize(table.codes.size() + static_cast<std::size_t>(packed_row_bytes(features)));
      pack_row(t, std::span(table.codes.begin() + at, table.codes.end()));
    }
    table.scale = normals(step == 0 ? 1 : rows * step);
    for (float& scale : table.scale) {
      scale = std::fabs(scale) * std::exp2(static_cast<float>(uniform(-20, 20)));
    }
    std::vector<std::int8_t> signs(static_cast<std::size_t>(block != 0 && uniform(0, 2) != 0 ? features : 0));
    std::ranges::generate(signs, [&] { return static_cast<std::int8_t>(2 * uniform(0, 1) - 1); });
    std::vector<std::int64_t> wanted_rows(static_cast<std::size_t>(uniform(1, 5)));
    std::ranges::generate(wanted_rows, [&] { return uniform(0, rows - 1); });
    const std::vector<float> indexes(wanted_rows.begin(), wanted_rows.end());
    std::vector<float> wanted(wanted_rows.size() * static_cast<std::size_t>(features));
    const Rotation rotation{block, signs.empty() ? nullptr : signs.data()};
    look_up(cpu_kernels_for(Backend::scalar), *parallel, table.view(), wanted_rows,
            block == 0 ? nullptr : &rotation, wanted.data());
    const DeviceArray<float> device_indexes{std::span<const float>(indexes)};
    const DeviceArray<std::uint8_t> codes{std::span<const std::uint8_t>(table.codes)};
    const DeviceArray<float> scale{std::span<const float>(table.scale)};
    const DeviceArray<std::int8_t> device_signs{std::span<const std::int8_t>(signs)};
    const DeviceArray<float> y(wanted.size());
    runtime::gpu::look_up({.indexes = device_indexes.data(),
                           .count = std::ssize(indexes),
                           .codes = codes.data(),
                           .scale = scale.data(),
                           .features = features,
                           .group = group,
                           .scale_step = step,
                           .block = block,
                           .signs = signs.empty() ? nullptr : device_signs.data(),
                           .y = y.data()},
                          nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(y, wanted)) << "case " << i;
  }
}

TEST_F(CudaKernels, NormalisationHasTheBitsOfItsFormula) {
  for (int i = 0; i < rounds(300); ++i) {
    use_policy(i);
    runtime::gpu::Normalize normalize{};
    normalize.images = uniform(1, 2);
    normalize.channels = static_cast<int>(uniform(1, runtime::gpu::kMaxImageChannels));
    normalize.plane = uniform(1, 40);
    std::vector<std::uint8_t> pixels(
        static_cast<std::size_t>(normalize.images * normalize.channels * normalize.plane));
    std::ranges::generate(pixels, [&] { return static_cast<std::uint8_t>(uniform(0, 255)); });
    const std::vector<float> mean = tensor(normalize.channels);
    const std::vector<float> deviation = tensor(normalize.channels);
    std::ranges::copy(mean, normalize.mean);
    std::ranges::copy(deviation, normalize.std);
    std::vector<float> wanted(pixels.size());
    for (std::size_t n = 0; n < wanted.size(); ++n) {
      const std::size_t channel = n / static_cast<std::size_t>(normalize.plane) % mean.size();
      wanted[n] = (static_cast<float>(pixels[n]) / 255.0F - mean[channel]) / deviation[channel];
    }
    const DeviceArray<std::uint8_t> device_pixels{std::span<const std::uint8_t>(pixels)};
    const DeviceArray<float> x(wanted.size());
    normalize.pixels = device_pixels.data();
    normalize.x = x.data();
    runtime::gpu::normalize(normalize, nullptr);
    ASSERT_NO_FATAL_FAILURE(expect(x, wanted)) << "case " << i;
  }
}

}  // namespace
}  // namespace trit::test

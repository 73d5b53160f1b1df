// SPDX-License-Identifier: MIT
#include "runtime/bf16_repair.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace trit::runtime {
namespace {

/// The smallest magnitude that rounds to infinity: 0x7f7f is odd, so the tie goes up.
constexpr std::int32_t kMinUnfit = 0x7f7f8000;

// The loop of whole activations: a copy for each instruction set, chosen when the library is loaded.
#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
std::int32_t
largest_magnitude(const float* values, std::size_t count) {
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff);
  }
  return largest;
}

/// One output pixel, all its channels.
void convolve_pixel(const builtin::Image& size, const float* x, const float* weight, const float* bias,
                    std::int64_t row, std::int64_t column, float* y) {
  const std::int64_t window = size.kernel_height * size.kernel_width;
  for (std::int64_t out = 0; out < size.out_channels; ++out) {
    float sum = bias == nullptr ? 0.0F : bias[out];
    for (std::int64_t i = 0; i < window; ++i) {
      const std::int64_t r = row * size.stride + i / size.kernel_width - size.padding;
      const std::int64_t q = column * size.stride + i % size.kernel_width - size.padding;
      if (r < 0 || r >= size.height || q < 0 || q >= size.width) {
        continue;
      }
      const float* const pixel = x + (r * size.width + q) * size.channels;
      for (std::int64_t c = 0; c < size.channels; ++c) {
        sum += pixel[c] * weight[(out * size.channels + c) * window + i];
      }
    }
    y[out] = sum;
  }
}

/// The outputs along one axis that read position `at`: [first, last).
struct Readers {
  std::int64_t first, last;
};
Readers readers(std::int64_t at, std::int64_t kernel, const builtin::Image& size, std::int64_t outputs) {
  const std::int64_t past = std::max<std::int64_t>(at + size.padding - kernel + 1, 0);
  return {(past + size.stride - 1) / size.stride, std::min(outputs, (at + size.padding) / size.stride + 1)};
}

void repair_image(const builtin::Image& size, const float* x, const float* weight, const float* bias,
                  float* y) {
  const auto channels = static_cast<std::size_t>(size.channels);
  const std::int64_t pixels = size.height * size.width;
  if (fits_bf16({x, static_cast<std::size_t>(pixels) * channels})) {
    return;
  }
  std::vector<bool> done(static_cast<std::size_t>(size.out_height * size.out_width));
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
    if (fits_bf16({x + pixel * size.channels, channels})) {
      continue;
    }
    const Readers rows = readers(pixel / size.width, size.kernel_height, size, size.out_height);
    const Readers columns = readers(pixel % size.width, size.kernel_width, size, size.out_width);
    for (std::int64_t row = rows.first; row < rows.last; ++row) {
      for (std::int64_t column = columns.first; column < columns.last; ++column) {
        const std::int64_t output = row * size.out_width + column;
        if (!done[static_cast<std::size_t>(output)]) {
          convolve_pixel(size, x, weight, bias, row, column, y + output * size.out_channels);
          done[static_cast<std::size_t>(output)] = true;
        }
      }
    }
  }
}

}  // namespace

bool fits_bf16(std::span<const float> values) {
  return largest_magnitude(values.data(), values.size()) < kMinUnfit;
}

void repair_outputs(Parallel& parallel, const builtin::Image& size, const float* x, const float* weight,
                    const float* bias, float* y) {
  parallel.run(size.batch, [&](std::int64_t image) {
    repair_image(size, x + image * size.height * size.width * size.channels, weight, bias,
                 y + image * size.out_height * size.out_width * size.out_channels);
  });
}

}  // namespace trit::runtime

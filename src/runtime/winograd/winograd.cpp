// SPDX-License-Identifier: MIT
#include "runtime/winograd/winograd.h"

#include <algorithm>
#include <cmath>

#include "cpu/cpu_features.h"
#include "runtime/winograd/kernel.h"

namespace trit::runtime {

using winograd::kPatch;
using winograd::kPoints;
using winograd::kTile;
using winograd::kWindow;

namespace {

constexpr std::int64_t kTaps = kWindow * kWindow;
/// Of a task: enough to fill the products' registers and to hide the packing of the rows that tasks share.
constexpr std::int64_t kTilesPerTask = 16;

// What pays() compares, from times of one core with AVX-512 (docs/design/convolutions.md).
/// A task has fewer tiles where the image has fewer, and then its products are bound by latency.
constexpr std::int64_t kMinTiles = 4;
/// Fewer leave most of a register empty.
constexpr std::int64_t kMinOutputs = 12;
/// Each task reads all of the transformed weights, which are four times the layer's.
constexpr std::int64_t kMaxTransformedBytes = std::int64_t{4} << 20;
/// Multiply-adds in the time of a transform, with its loads and stores, and of an output's further pass
/// through ReLU and pool, which a direct convolution needs.
constexpr double kOutputTransform = 180, kInputTransform = 200, kOutputPass = 8;
constexpr double kMaxOfDirect = 0.75;
/// Where there are few channels and more outputs than this, writing them takes the time, and a direct
/// convolution writes them in one stream.
constexpr std::int64_t kFewChannels = 12;
constexpr std::int64_t kMaxOutputsOfFew = std::int64_t{1} << 17;
/// Outputs of such weights are computed directly anyway.
constexpr float kLargestWeight = 0x1p20F;

/// u = G g G^T for one filter. In double, rounded once.
void transform_filter(const float* filter, double (&u)[kPatch][kPatch]) {
  constexpr double kG[kPatch][kWindow] = {{1.0 / 4, 0, 0},
                                          {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                          {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                          {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                          {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                          {0, 0, 1}};
  double rows[kPatch][kWindow] = {};
  for (std::int64_t i = 0; i < kPatch; ++i) {
    for (std::int64_t j = 0; j < kWindow; ++j) {
      for (std::int64_t k = 0; k < kWindow; ++k) {
        rows[i][j] += kG[i][k] * static_cast<double>(filter[k * kWindow + j]);
      }
    }
  }
  for (std::int64_t i = 0; i < kPatch; ++i) {
    for (std::int64_t j = 0; j < kPatch; ++j) {
      u[i][j] = 0;
      for (std::int64_t k = 0; k < kWindow; ++k) {
        u[i][j] += rows[i][k] * kG[j][k];
      }
    }
  }
}

AlignedBuffer zeros(std::int64_t floats) {
  AlignedBuffer buffer(static_cast<std::size_t>(floats) * sizeof(float));
  std::fill_n(buffer.data(), buffer.size(), std::uint8_t{0});
  return buffer;
}

}  // namespace

const winograd::Kernel* winograd_kernel(Backend backend) {
#if defined(__x86_64__)
  switch (backend) {
    case Backend::avx512_vnni:
    case Backend::amx:
      return &winograd::k_avx512;
    case Backend::avx2:
    case Backend::avx_vnni:
      return &winograd::k_avx2;
    default:
      break;
  }
#endif
  static_cast<void>(backend);
  return nullptr;
}

WinogradConvolution::WinogradConvolution(const winograd::Kernel& kernel, std::int64_t channels,
                                         std::int64_t out_channels, std::span<const float> weight,
                                         std::span<const float> bias)
    : kernel_(&kernel) {
  const std::int64_t block = kernel.block;
  const std::int64_t outputs = (out_channels + block - 1) / block * block;
  transformed_ = zeros(outputs * channels * kPoints);
  direct_ = zeros(outputs * channels * kTaps);
  bias_.resize(static_cast<std::size_t>(outputs));
  std::copy(bias.begin(), bias.end(), bias_.begin());
  auto* const transformed = reinterpret_cast<float*>(transformed_.data());
  auto* const direct = reinterpret_cast<float*>(direct_.data());
  for (std::int64_t n = 0; n < out_channels; ++n) {
    const std::int64_t first = n / block * block;
    const std::int64_t lane = n - first;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float* const filter = weight.data() + (n * channels + c) * kTaps;
      double u[kPatch][kPatch];
      transform_filter(filter, u);
      for (std::int64_t p = 0; p < kPoints; ++p) {
        transformed[first * kPoints * channels + (p * channels + c) * block + lane] =
            static_cast<float>(u[p / kPatch][p % kPatch]);
      }
      for (std::int64_t k = 0; k < kTaps; ++k) {
        direct[first * kTaps * channels + (c * kTaps + k) * block + lane] = filter[k];
      }
    }
  }
}

bool WinogradConvolution::pays(const winograd::Kernel* kernel, const ConvolutionShape& shape,
                               std::span<const float> weight) {
  const std::int64_t rows = (shape.convolved_height() + kTile - 1) / kTile;
  const std::int64_t columns = (shape.convolved_width() + kTile - 1) / kTile;
  if (kernel == nullptr || rows <= 0 || columns <= 0 || rows * columns < kMinTiles ||
      shape.out_channels < kMinOutputs ||
      std::ssize(weight) * kPoints / kTaps * std::int64_t{sizeof(float)} > kMaxTransformedBytes) {
    return false;
  }
  if (shape.channels < kFewChannels &&
      shape.out_channels * shape.out_height() * shape.out_width() > kMaxOutputsOfFew) {
    return false;
  }
  // Instructions of a tile and register of outputs, most of them multiply-adds.
  const auto channels = static_cast<double>(shape.channels);
  const double outputs =
      static_cast<double>(shape.out_channels * shape.convolved_height() * shape.convolved_width());
  const double tiles = static_cast<double>(rows * columns);
  const std::int64_t lanes = kernel->block / 2;
  const std::int64_t whole_registers = (shape.out_channels + lanes - 1) / lanes;
  const std::int64_t whole_groups = (shape.channels + lanes - 1) / lanes;
  const auto registers = static_cast<double>(whole_registers);
  const auto groups = static_cast<double>(whole_groups);
  const double winograd =
      tiles * (registers * (kPoints * channels + kOutputTransform) + groups * kInputTransform);
  const double direct = outputs / static_cast<double>(lanes) * (kTaps * channels + kOutputPass);
  return winograd < direct * kMaxOfDirect &&
         std::all_of(weight.begin(), weight.end(), [](float w) { return std::fabs(w) <= kLargestWeight; });
}

void WinogradConvolution::run(Parallel& parallel, const ConvolutionShape& shape, std::int64_t batch,
                              const float* x, ImageOrder x_order, float* y, ImageOrder y_order) const {
  if (batch == 0 || shape.out_height() <= 0 || shape.out_width() <= 0) {
    return;
  }
  const std::int64_t columns = (shape.convolved_width() + kTile - 1) / kTile;
  const std::int64_t rows = (shape.convolved_height() + kTile - 1) / kTile;
  // Rows of a task: kTilesPerTask, but work for every thread.
  const std::int64_t threads = parallel.threads();
  const std::int64_t rows_per_task = std::clamp<std::int64_t>(
      std::min((kTilesPerTask + columns - 1) / columns, rows * batch / threads), 1, rows);
  const std::int64_t tasks = (rows + rows_per_task - 1) / rows_per_task;
  const std::int64_t x_size = shape.channels * shape.height * shape.width;
  const std::int64_t y_size = shape.out_channels * shape.out_height() * shape.out_width();
  const std::size_t scratch = kernel_->scratch_bytes(shape, rows_per_task);
  parallel.run(batch * tasks, [&](std::int64_t task) {
    static thread_local AlignedBuffer memory;
    if (memory.size() < scratch) {
      memory = AlignedBuffer(scratch);
    }
    const std::int64_t image = task / tasks;
    const std::int64_t first = task % tasks * rows_per_task;
    kernel_->run({.shape = shape,
                  .first_row = first,
                  .rows = std::min(rows_per_task, rows - first),
                  .x = x + image * x_size,
                  .y = y + image * y_size,
                  .x_order = x_order,
                  .y_order = y_order,
                  .transformed = reinterpret_cast<const float*>(transformed_.data()),
                  .direct = reinterpret_cast<const float*>(direct_.data()),
                  .bias = bias_.data(),
                  .scratch = reinterpret_cast<std::byte*>(memory.data())});
  });
}

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
#include "runtime/builtin_kernels.h"

#include <algorithm>

namespace trit::runtime::builtin {
namespace {

float relu_of(float value) { return value < 0 ? 0.0F : value; }

// One task: 4 output channels of one image. Its tile is 4 channels x 8 columns of one output row: 32 sums are
// eight SSE registers, which leaves the other eight for the weights and the inputs.
constexpr std::int64_t kChannels = 4;
constexpr std::int64_t kColumns = 8;

/// Outputs [channel, channel + Channels) x [column, column + Columns) of one row. `Inside`: no column of the
/// tile touches the padding.
template <int Channels, int Columns, bool Inside>
void conv_tile(const Image& size, const float* x, const float* weight, const float* bias, bool relu,
               std::int64_t row, std::int64_t column, float* y) {
  float sums[Channels][Columns];
  for (int c = 0; c < Channels; ++c) {
    std::fill_n(sums[c], Columns, bias == nullptr ? 0.0F : bias[c]);
  }
  const std::int64_t window = size.kernel_height * size.kernel_width;
  for (std::int64_t in = 0; in < size.channels; ++in) {
    for (std::int64_t i = 0; i < size.kernel_height; ++i) {
      const std::int64_t from_row = row * size.stride + i - size.padding;
      if (from_row < 0 || from_row >= size.height) {
        continue;
      }
      const float* const line = x + (in * size.height + from_row) * size.width;
      for (std::int64_t j = 0; j < size.kernel_width; ++j) {
        const std::int64_t first = column * size.stride + j - size.padding;
        float values[Columns];
        for (int n = 0; n < Columns; ++n) {
          const std::int64_t at = first + n * size.stride;
          values[n] = Inside || (at >= 0 && at < size.width) ? line[at] : 0.0F;
        }
        const float* const w = weight + in * window + i * size.kernel_width + j;
        for (int c = 0; c < Channels; ++c) {
          for (int n = 0; n < Columns; ++n) {
            sums[c][n] += w[c * size.channels * window] * values[n];
          }
        }
      }
    }
  }
  for (int c = 0; c < Channels; ++c) {
    float* const out = y + (c * size.out_height + row) * size.out_width + column;
    for (int n = 0; n < Columns; ++n) {
      out[n] = relu ? relu_of(sums[c][n]) : sums[c][n];
    }
  }
}

template <int Channels>
void conv_channels(const Image& size, const float* x, const float* weight, const float* bias, bool relu,
                   float* y) {
  // Columns in [inside_begin, inside_end) read no padding. Its end may lie before its beginning.
  const std::int64_t inside_begin = (size.padding + size.stride - 1) / size.stride;
  const std::int64_t last_start = size.width + size.padding - size.kernel_width;
  const std::int64_t inside_end = last_start < 0 ? 0 : std::min(size.out_width, last_start / size.stride + 1);
  for (std::int64_t row = 0; row < size.out_height; ++row) {
    std::int64_t column = 0;
    while (column < size.out_width) {
      if (column >= inside_begin && column + kColumns <= inside_end) {
        conv_tile<Channels, kColumns, true>(size, x, weight, bias, relu, row, column, y);
        column += kColumns;
      } else {
        conv_tile<Channels, 1, false>(size, x, weight, bias, relu, row, column, y);
        ++column;
      }
    }
  }
}

}  // namespace

void conv2d(Parallel& parallel, const Image& size, const float* x, const float* weight, const float* bias,
            bool relu, float* y) {
  const std::int64_t groups = (size.out_channels + kChannels - 1) / kChannels;
  const std::int64_t filter = size.channels * size.kernel_height * size.kernel_width;
  const std::int64_t plane = size.out_height * size.out_width;
  parallel.run(size.batch * groups, [&](std::int64_t task) {
    const std::int64_t image = task / groups;
    const std::int64_t begin = task % groups * kChannels;
    const std::int64_t end = std::min(begin + kChannels, size.out_channels);
    const float* const in = x + image * size.channels * size.height * size.width;
    float* const out = y + image * size.out_channels * plane;
    if (end - begin == kChannels) {
      conv_channels<kChannels>(size, in, weight + begin * filter, bias == nullptr ? nullptr : bias + begin,
                               relu, out + begin * plane);
      return;
    }
    for (std::int64_t c = begin; c < end; ++c) {
      conv_channels<1>(size, in, weight + c * filter, bias == nullptr ? nullptr : bias + c, relu,
                       out + c * plane);
    }
  });
}

void linear(Parallel& parallel, std::int64_t rows, std::int64_t in, std::int64_t out, const float* x,
            const float* weight, const float* bias, bool with_relu, float* y) {
  constexpr std::int64_t kLanesOfDot = 16;     // independent sums: the compiler may not reorder one
  constexpr std::int64_t kOutputsOfTask = 32;  // their weights stay in L1 or L2 for all rows
  parallel.run((out + kOutputsOfTask - 1) / kOutputsOfTask, [&](std::int64_t task) {
    const std::int64_t begin = task * kOutputsOfTask;
    const std::int64_t end = std::min(begin + kOutputsOfTask, out);
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* const a = x + row * in;
      for (std::int64_t n = begin; n < end; ++n) {
        const float* const b = weight + n * in;
        float lanes[kLanesOfDot] = {};
        std::int64_t k = 0;
        for (; k + kLanesOfDot <= in; k += kLanesOfDot) {
          for (std::int64_t l = 0; l < kLanesOfDot; ++l) {
            lanes[l] += a[k + l] * b[k + l];
          }
        }
        float sum = 0;
        for (; k < in; ++k) {
          sum += a[k] * b[k];
        }
        for (const float lane : lanes) {
          sum += lane;
        }
        sum += bias == nullptr ? 0.0F : bias[n];
        y[row * out + n] = with_relu ? relu_of(sum) : sum;
      }
    }
  });
}

}  // namespace trit::runtime::builtin

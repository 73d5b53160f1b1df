// SPDX-License-Identifier: MIT
//
// Part of tile_rows.h: images to rows of pixels with zeros around them, and outputs back.
#pragma once

#include "runtime/winograd/plan.h"

/// to[x * to_stride + c] = from[c * from_stride + x] for x, c < 4; channels from `count` on are zero.
inline void transpose4(const float* from, std::int64_t from_stride, std::int64_t count, float* to,
                       std::int64_t to_stride) {
  __m128 r0 = _mm_loadu_ps(from);
  __m128 r1 = count > 1 ? _mm_loadu_ps(from + from_stride) : _mm_setzero_ps();
  __m128 r2 = count > 2 ? _mm_loadu_ps(from + 2 * from_stride) : _mm_setzero_ps();
  __m128 r3 = count > 3 ? _mm_loadu_ps(from + 3 * from_stride) : _mm_setzero_ps();
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  _mm_storeu_ps(to, r0);
  _mm_storeu_ps(to + to_stride, r1);
  _mm_storeu_ps(to + 2 * to_stride, r2);
  _mm_storeu_ps(to + 3 * to_stride, r3);
}

/// One row of x as pixels of `channels` floats.
inline void pack_row(const ConvolutionShape& shape, const float* x, ImageOrder order, std::int64_t row,
                     std::int64_t channels, float* to) {
  if (order == ImageOrder::pixels) {
    const float* const from = x + row * shape.width * shape.channels;
    if (channels == shape.channels) {
      __builtin_memcpy(to, from, static_cast<std::size_t>(shape.width * channels) * sizeof(float));
      return;
    }
    for (std::int64_t i = 0; i < shape.width; ++i) {
      for (std::int64_t c = 0; c < channels; ++c) {
        to[i * channels + c] = c < shape.channels ? from[i * shape.channels + c] : 0.0F;
      }
    }
    return;
  }
  const std::int64_t plane = shape.height * shape.width;
  for (std::int64_t c = 0; c < channels; c += 4) {
    const float* const from = x + c * plane + row * shape.width;  // only read where c < shape.channels
    const std::int64_t count = shape.channels - c;
    std::int64_t i = 0;
    if (count > 0) {
      for (; i + 4 <= shape.width; i += 4) {
        transpose4(from + i, plane, count, to + i * channels + c, channels);
      }
    }
    for (; i < shape.width; ++i) {
      for (std::int64_t k = 0; k < 4; ++k) {
        to[i * channels + c + k] = k < count ? from[k * plane + i] : 0.0F;
      }
    }
  }
}

/// The rows of x that the task's tiles read, with zeros for what lies outside.
inline void pack(const Task& task, const Plan& plan, float* packed) {
  const ConvolutionShape& shape = task.shape;
  const std::int64_t rows = task.rows * kTile + kWindow - 1;
  const std::int64_t left = min(shape.padding * plan.channels, plan.packed_row);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t row = task.first_row * kTile + r - shape.padding;
    float* const to = packed + r * plan.packed_row;
    std::int64_t end = 0;  // of what is filled
    if (row >= 0 && row < shape.height) {
      __builtin_memset(to, 0, static_cast<std::size_t>(left) * sizeof(float));
      pack_row(shape, task.x, task.x_order, row, plan.channels, to + left);
      end = left + shape.width * plan.channels;
    }
    __builtin_memset(to + end, 0, static_cast<std::size_t>(plan.packed_row - end) * sizeof(float));
  }
}

inline void unpack_row(const ConvolutionShape& shape, const float* from, std::int64_t pixel, std::int64_t row,
                       float* y, ImageOrder order) {
  const std::int64_t width = shape.out_width();
  const std::int64_t outputs = shape.out_channels;
  if (order == ImageOrder::pixels) {
    float* const to = y + row * width * outputs;
    if (pixel == outputs) {
      __builtin_memcpy(to, from, static_cast<std::size_t>(width * outputs) * sizeof(float));
      return;
    }
    for (std::int64_t i = 0; i < width; ++i) {
      __builtin_memcpy(to + i * outputs, from + i * pixel, static_cast<std::size_t>(outputs) * sizeof(float));
    }
    return;
  }
  const std::int64_t plane = shape.out_height() * width;
  for (std::int64_t c = 0; c < outputs; c += 4) {
    float* const to = y + c * plane + row * width;
    std::int64_t i = 0;
    if (c + 4 <= outputs) {
      for (; i + 4 <= width; i += 4) {
        transpose4(from + i * pixel + c, pixel, 4, to + i, plane);
      }
    }
    for (; i < width; ++i) {
      for (std::int64_t k = 0; k < min(4, outputs - c); ++k) {
        to[k * plane + i] = from[i * pixel + c + k];
      }
    }
  }
}

inline void unpack(const Task& task, const Plan& plan, const float* result) {
  const std::int64_t stride = plan.columns * plan.tile_out * plan.outputs;
  const std::int64_t first = task.first_row * plan.tile_out;
  const std::int64_t rows = min(task.rows * plan.tile_out, task.shape.out_height() - first);
  for (std::int64_t r = 0; r < rows; ++r) {
    unpack_row(task.shape, result + r * stride, plan.outputs, first + r, task.y, task.y_order);
  }
}

// SPDX-License-Identifier: MIT
//
// What a network has between its products, on device memory: the arithmetic of the CPU's loops, value by
// value.
#pragma once

#include <cstdint>

#include "trit/cuda.h"

namespace trit::runtime::gpu {

inline constexpr int kMaxImageChannels = 16;

/// x = (byte / 255 - mean) / std of [images, channels, plane].
struct Normalize {
  const std::uint8_t* pixels;
  float* x;
  std::int64_t images;
  std::int64_t plane;
  int channels;  // at most kMaxImageChannels
  float mean[kMaxImageChannels];
  float std[kMaxImageChannels];
};
void normalize(const Normalize& args, cuda::Stream stream);

/// What comes behind a product, in place: y + bias[channel], then ReLU; NaN and -0.0 pass. `bias` may be
/// null.
struct BiasRelu {
  const float* x;
  float* y;
  std::int64_t count;
  std::int64_t channels;
  std::int64_t plane;  // values of one channel that follow each other
  const float* bias;
  bool relu;
};
void bias_relu(const BiasRelu& args, cuda::Stream stream);

/// y = x * scale[channel] + shift[channel], product and sum rounded; `y` may be `x`.
struct ScaleShift {
  const float* x;
  float* y;
  std::int64_t count;
  std::int64_t channels;
  std::int64_t plane;
  const float* scale;
  const float* shift;
};
void scale_shift(const ScaleShift& args, cuda::Stream stream);

/// runtime/ops/gelu.h; `y` may be `x`.
struct Gelu {
  const float* x;
  float* y;
  std::int64_t count;
  bool tanh;
};
void gelu(const Gelu& args, cuda::Stream stream);

void add(const float* a, const float* b, float* y, std::int64_t count, cuda::Stream stream);

/// trit::look_up: rows of a ternary embedding in its stored form, t * scale, rotated back where it is rotated.
struct LookUp {
  const float* indexes;  // [count], whole numbers 0 .. rows of the table - 1
  std::int64_t count;
  const std::uint8_t* codes;  // [rows, packed_row_bytes(features)]
  const float* scale;         // [1] or, with scale_step, [rows, groups_of(features, group)]
  std::int64_t features;      // at most 2^24
  std::int64_t group;         // inputs of a scale, 0: all of a row
  std::int64_t scale_step;    // scales of a row, 0: one of the table
  std::int64_t block;         // of the rotation, trit/rotation.h; 0: none
  const std::int8_t* signs;   // [features], +1 or -1; null for all +1
  float* y;                   // out [count, features]
};
void look_up(const LookUp& args, cuda::Stream stream);

/// The largest value, or the mean, of square windows. Bias and ReLU of the layer in front come first, value
/// by value: added behind a maximum they would lose a NaN (-Inf + Inf) and the sign of a zero.
struct Pool {
  const float* x;
  float* y;
  std::int64_t images;
  int channels, height, width;
  int out_height, out_width;
  int kernel, stride;
  bool maximum;
  const float* bias;
  bool relu;
};
void pool(const Pool& args, cuda::Stream stream);

}  // namespace trit::runtime::gpu

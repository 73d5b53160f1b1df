// SPDX-License-Identifier: MIT
//
// Part of tile_rows.h: the transforms of one tile, and the direct way for tiles that need it.
#pragma once

#include "runtime/winograd/plan.h"

/// v = B^T d:  4  0 -5  0  1  0
///             0 -4 -4  1  1  0
///             0  4 -4 -1  1  0
///             0 -2 -1  2  1  0
///             0  2 -1 -2  1  0
///             0  4  0 -5  0  1
template <typename Register>
__attribute__((always_inline)) inline void input_transform(const Register (&d)[6], Register (&v)[6]) {
  const Register minus5 = Register{} - 5.0F, minus4 = Register{} - 4.0F, four = Register{} + 4.0F,
                 two = Register{} + 2.0F;
  v[0] = fma(four, d[0], fma(minus5, d[2], d[4]));
  v[5] = fma(four, d[1], fma(minus5, d[3], d[5]));
  const Register even = fma(minus4, d[2], d[4]), odd = fma(minus4, d[1], d[3]);
  v[1] = even + odd;
  v[2] = even - odd;
  const Register difference = d[4] - d[2], twice = d[3] - d[1];
  v[3] = fma(two, twice, difference);
  v[4] = difference - two * twice;
}

/// One tile's patch, C channels: v[point * point_stride ...].
template <int C>
void transform_patch(const float* patch, std::int64_t row, std::int64_t pixel, float* v,
                     std::int64_t point_stride) {
  using V = Vec<C>;
  typename V::Register columns[6][6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    typename V::Register d[6], t[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      d[i] = V::load(patch + i * row + j * pixel);
    }
    input_transform(d, t);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      columns[i][j] = t[i];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    typename V::Register t[6];
    input_transform(columns[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      V::store(v + (6 * i + j) * point_stride, t[j]);
    }
  }
}

/// y = A^T m:  1  1  1  1  1  0
///             0  1 -1  2 -2  0
///             0  1  1  4  4  0
///             0  1 -1  8 -8  1
template <typename Register>
__attribute__((always_inline)) inline void output_transform(const Register (&m)[6], Register (&y)[4]) {
  const Register two = Register{} + 2.0F, four = Register{} + 4.0F, eight = Register{} + 8.0F;
  const Register sum1 = m[1] + m[2], difference1 = m[1] - m[2];
  const Register sum2 = m[3] + m[4], difference2 = m[3] - m[4];
  y[0] = m[0] + sum1 + sum2;
  y[1] = fma(two, difference2, difference1);
  y[2] = fma(four, sum2, sum1);
  y[3] = fma(eight, difference2, difference1 + m[5]);
}

/// The same outputs by the definition, one at a time: NaN and infinity come where they belong.
__attribute__((noinline)) inline void direct_tile(const ConvolutionShape& shape, const float* patch,
                                                  std::int64_t row, std::int64_t pixel, const float* weight,
                                                  const float* bias, float* y, std::int64_t y_row,
                                                  std::int64_t y_pixel) {
  float outputs[kTile][kTile][kLanes];
  for (std::int64_t i = 0; i < kTile; ++i) {
    for (std::int64_t j = 0; j < kTile; ++j) {
      float* const sums = outputs[i][j];
      for (int l = 0; l < kLanes; ++l) {
        sums[l] = bias[l];
      }
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        for (std::int64_t k = 0; k < kWindow * kWindow; ++k) {
          const float x = patch[(i + k / kWindow) * row + (j + k % kWindow) * pixel + c];
          const float* const w = weight + (c * kWindow * kWindow + k) * kBlock;
          for (int l = 0; l < kLanes; ++l) {
            sums[l] += x * w[l];
          }
        }
      }
      for (int l = 0; l < kLanes; ++l) {
        sums[l] = shape.relu && sums[l] < 0 ? 0.0F : sums[l];
      }
    }
  }
  const int step = shape.pool ? 2 : 1;
  for (int i = 0; i < kTile; i += step) {
    for (int j = 0; j < kTile; j += step) {
      float* const to = y + i / step * y_row + j / step * y_pixel;
      for (int l = 0; l < kLanes; ++l) {
        float largest = outputs[i][j][l];
        for (int k = 1; k < step * step; ++k) {
          const float value = outputs[i + k / 2][j + k % 2][l];
          largest = value > largest || value != value ? value : largest;
        }
        to[l] = largest;
      }
    }
  }
}

/// One tile, kLanes output channels: y = pool(relu(A^T m A + bias)). False, and y unwritten, where the tile
/// is to be computed directly.
inline bool transform_outputs(const float* m, const float* bias, bool relu, bool pool, float* y,
                              std::int64_t y_row, std::int64_t y_pixel) {
  using V = Vec<kLanes>;
  using Register = V::Register;
  Register columns[4][6];
#pragma GCC unroll 6
  for (int j = 0; j < 6; ++j) {
    Register p[6], t[4];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      p[i] = V::load(m + (6 * i + j) * Plan::kPointStride);
    }
    output_transform(p, t);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      columns[i][j] = t[i];
    }
  }
  const Register b = V::load(bias);
  Register squares{};
  Register outputs[4][4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    output_transform(columns[i], outputs[i]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      outputs[i][j] += b;
      squares = fma(outputs[i][j], outputs[i][j], squares);
    }
  }
  if (Isa::any_above(squares, kMaxSquares)) {
    return false;
  }
  const Register floor = relu ? Register{} : Register{} - __builtin_inff();
  if (pool) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const Register upper = Isa::max(outputs[2 * i][2 * j], outputs[2 * i][2 * j + 1]);
        const Register lower = Isa::max(outputs[2 * i + 1][2 * j], outputs[2 * i + 1][2 * j + 1]);
        V::store(y + i * y_row + j * y_pixel, Isa::max(floor, Isa::max(upper, lower)));
      }
    }
    return true;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      V::store(y + i * y_row + j * y_pixel, Isa::max(floor, outputs[i][j]));
    }
  }
  return true;
}

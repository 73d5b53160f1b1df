// SPDX-License-Identifier: MIT
//
// Included by one file for each instruction set, which is compiled with its flags: everything is in an
// unnamed namespace. Vectors are as wide as its registers: gcc takes wider ones apart, one float at a time.
#pragma once

#include <cstring>
#include <limits>

#include "runtime/relu_pool_rows.h"

namespace trit::runtime {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

template <int Lanes>
struct Vector {
  typedef float type __attribute__((vector_size(Lanes * sizeof(float))));
};
template <>
struct Vector<1> {
  using type = float;
};

/// Lanes [c, c + Lanes) of one output row. `Kernel`: the window's size, 0 where only `size` knows it.
template <bool Max, int Lanes, int Kernel>
inline void pool_lanes(const Pooling& size, std::int64_t c, const float* x, float* y) {
  using Values = typename Vector<Lanes>::type;
  const std::int64_t kernel = Kernel == 0 ? size.kernel : Kernel;
  const Values zero{};
  // Nothing is below -infinity: without the ReLU nothing is replaced.
  const Values lowest = zero + (size.relu ? 0.0F : -std::numeric_limits<float>::infinity());
  for (std::int64_t column = 0; column < size.out_width; ++column) {
    const float* const window = x + column * size.stride * size.inner + c;
    Values result = zero;
    for (std::int64_t i = 0; i < kernel; ++i) {
      for (std::int64_t j = 0; j < kernel; ++j) {
        Values value;
        std::memcpy(&value, window + (i * size.width + j) * size.inner, sizeof(value));
        value = value < lowest ? zero : value;  // false for NaN
        if constexpr (Max) {
          // A NaN wins, and then nothing is larger. NOLINTNEXTLINE(misc-redundant-expression)
          const auto better = (value > result) | (value != value);
          const Values larger = better ? value : result;
          result = i == 0 && j == 0 ? value : larger;
        } else {
          result += value;
        }
      }
    }
    if constexpr (!Max) {
      result /= zero + static_cast<float>(kernel * kernel);
    }
    std::memcpy(y + column * size.inner + c, &result, sizeof(result));
  }
}

template <bool Max, int Kernel>
inline void pool_row(const Pooling& pooling, const float* x, float* y) {
  const Pooling size = pooling;  // a copy that y cannot alias
  std::int64_t c = 0;
  for (; c + kWidth <= size.inner; c += kWidth) {
    pool_lanes<Max, kWidth, Kernel>(size, c, x, y);
  }
  for (; c + 4 <= size.inner; c += 4) {
    pool_lanes<Max, 4, Kernel>(size, c, x, y);
  }
  for (; c < size.inner; ++c) {
    pool_lanes<Max, 1, Kernel>(size, c, x, y);
  }
}

void max_row(const Pooling& size, const float* x, float* y) {
  size.kernel == 2 ? pool_row<true, 2>(size, x, y) : pool_row<true, 0>(size, x, y);
}

void mean_row(const Pooling& size, const float* x, float* y) {
  size.kernel == 2 ? pool_row<false, 2>(size, x, y) : pool_row<false, 0>(size, x, y);
}

void relu_block(std::int64_t count, const float* x, float* y) {
  using Values = Vector<kWidth>::type;
  std::int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Values value;
    std::memcpy(&value, x + i, sizeof(value));
    value = value < Values{} ? Values{} : value;
    std::memcpy(y + i, &value, sizeof(value));
  }
  for (; i < count; ++i) {
    y[i] = x[i] < 0 ? 0.0F : x[i];
  }
}

void add_block(std::int64_t count, const float* a, const float* b, float* y) {
  using Values = Vector<kWidth>::type;
  std::int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Values left, right;
    std::memcpy(&left, a + i, sizeof(left));
    std::memcpy(&right, b + i, sizeof(right));
    left += right;
    std::memcpy(y + i, &left, sizeof(left));
  }
  for (; i < count; ++i) {
    y[i] = a[i] + b[i];
  }
}

constexpr ReluPoolRows kRows{relu_block, add_block, max_row, mean_row};

}  // namespace
}  // namespace trit::runtime

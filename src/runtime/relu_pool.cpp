// SPDX-License-Identifier: MIT
#include "runtime/relu_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/clones.h"

#define TRIT_INLINE inline __attribute__((always_inline))

namespace trit::runtime {
namespace {

/// `Lanes` floats that the compiler keeps in vector registers; one float is a plain one.
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
TRIT_INLINE void pool_lanes(const Pooling& size, std::int64_t c, const float* x, float* y) {
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
TRIT_INLINE void pool_row(const Pooling& pooling, const float* x, float* y) {
  const Pooling size = pooling;  // a copy that y cannot alias
  std::int64_t c = 0;
  for (; c + 16 <= size.inner; c += 16) {
    pool_lanes<Max, 16, Kernel>(size, c, x, y);
  }
  for (; c + 8 <= size.inner; c += 8) {
    pool_lanes<Max, 8, Kernel>(size, c, x, y);
  }
  for (; c < size.inner; ++c) {
    pool_lanes<Max, 1, Kernel>(size, c, x, y);
  }
}

TRIT_CLONES void max_row(const Pooling& size, const float* x, float* y) {
  size.kernel == 2 ? pool_row<true, 2>(size, x, y) : pool_row<true, 0>(size, x, y);
}
TRIT_CLONES void mean_row(const Pooling& size, const float* x, float* y) {
  size.kernel == 2 ? pool_row<false, 2>(size, x, y) : pool_row<false, 0>(size, x, y);
}
TRIT_CLONES void relu_block(std::int64_t count, const float* x, float* y) {
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = x[i] < 0 ? 0.0F : x[i];
  }
}

/// A task takes the rows of one element of `outer`, or fewer where there are few.
void pool(Parallel& parallel, const Pooling& size, const float* x, float* y,
          void (*row)(const Pooling& size, const float* x, float* y)) {
  const std::int64_t in_row = size.width * size.inner;
  const std::int64_t out_row = size.out_width * size.inner;
  const std::int64_t parts = size.outer >= 4 * parallel.threads() ? 1 : size.out_height;
  parallel.run(size.outer * parts, [&, row](std::int64_t task) {
    const std::int64_t image = task / parts;
    const std::int64_t part = task % parts;
    for (std::int64_t r = size.out_height * part / parts; r < size.out_height * (part + 1) / parts; ++r) {
      row(size, x + (image * size.height + r * size.stride) * in_row,
          y + (image * size.out_height + r) * out_row);
    }
  });
}

}  // namespace

void relu(Parallel& parallel, std::int64_t count, const float* x, float* y) {
  constexpr std::int64_t kBlock = 8192;  // 32 KiB, an L1
  parallel.run((count + kBlock - 1) / kBlock, [&](std::int64_t task) {
    const std::int64_t begin = task * kBlock;
    relu_block(std::min(kBlock, count - begin), x + begin, y + begin);
  });
}

void max_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y) {
  pool(parallel, size, x, y, max_row);
}
void avg_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y) {
  pool(parallel, size, x, y, mean_row);
}

}  // namespace trit::runtime

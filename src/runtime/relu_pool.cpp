// SPDX-License-Identifier: MIT
#include "runtime/relu_pool.h"

#include <algorithm>

#include "cpu/cpu_features.h"
#include "runtime/relu_pool_rows.h"

namespace trit::runtime {
namespace {

constexpr std::int64_t kBlock = 8192;  // 32 KiB, an L1

const ReluPoolRows& rows() {
  static const ReluPoolRows& chosen = kReluPoolAvx512 != nullptr && has_avx512_vnni() ? *kReluPoolAvx512
                                      : kReluPoolAvx2 != nullptr && has_avx2()        ? *kReluPoolAvx2
                                                                                      : *kReluPoolGeneric;
  return chosen;
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
  parallel.run((count + kBlock - 1) / kBlock, [&](std::int64_t task) {
    const std::int64_t begin = task * kBlock;
    rows().relu(std::min(kBlock, count - begin), x + begin, y + begin);
  });
}

void add(Parallel& parallel, std::int64_t count, const float* a, const float* b, float* y) {
  parallel.run((count + kBlock - 1) / kBlock, [&](std::int64_t task) {
    const std::int64_t begin = task * kBlock;
    rows().add(std::min(kBlock, count - begin), a + begin, b + begin, y + begin);
  });
}

void max_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y) {
  pool(parallel, size, x, y, rows().max_row);
}
void avg_pool2d(Parallel& parallel, const Pooling& size, const float* x, float* y) {
  pool(parallel, size, x, y, rows().mean_row);
}

}  // namespace trit::runtime

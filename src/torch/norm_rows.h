// SPDX-License-Identifier: MIT
//
// RMSNorm of many rows and its backward on a CPU, from the functions of row_kernels.h. Free of torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "torch/row_kernels.h"
#include "trit/parallel.h"

namespace trit::torch_layer {

/// y [rows, features] and r [rows]; `weight` may be null.
inline void rms_norm_rows(Parallel&& parallel, const float* x, const float* weight, double eps,
                          std::int64_t rows, std::int64_t features, float* y, float* rstd) {
  parallel.run(rows, [&](std::int64_t row) {
    rstd[row] =
        rms_norm_row(x + row * features, weight, static_cast<float>(eps), features, y + row * features);
  });
}

struct NormBackwardRows {
  const float* grad;    // [rows, features]
  const float* x;       // likewise
  const float* weight;  // [features] or null
  const float* rstd;    // [rows]
  std::int64_t rows;
  std::int64_t features;
  float* grad_x;       // out [rows, features], or null
  float* grad_weight;  // out [features], or null
};
/// The weight's gradient is summed per chunk of rows, then over the chunks in order: 16 at most, whatever the
/// number of threads, so the bits do not depend on it.
inline void rms_norm_backward_rows(Parallel&& parallel, const NormBackwardRows& a) {
  if (a.grad_x == nullptr && a.grad_weight == nullptr) {
    return;
  }
  const std::int64_t chunks = std::clamp<std::int64_t>(a.rows, 1, 16);
  std::vector<float> partial(a.grad_weight != nullptr ? static_cast<std::size_t>(chunks * a.features) : 0);
  parallel.run(chunks, [&](std::int64_t chunk) {
    for (std::int64_t row = chunk * a.rows / chunks; row < (chunk + 1) * a.rows / chunks; ++row) {
      const std::int64_t at = row * a.features;
      rms_norm_backward_row(a.grad + at, a.x + at, a.weight, a.rstd[row], a.features,
                            a.grad_x != nullptr ? a.grad_x + at : nullptr,
                            partial.empty() ? nullptr : partial.data() + chunk * a.features);
    }
  });
  if (a.grad_weight == nullptr) {
    return;
  }
  for (std::int64_t chunk = 1; chunk < chunks; ++chunk) {
    add_row(partial.data() + chunk * a.features, a.features, partial.data());
  }
  std::copy_n(partial.data(), a.features, a.grad_weight);
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
#include "torch/gradient_int8.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <vector>

#include "torch/row_kernels.h"
#include "trit/backend.h"
#include "trit/format.h"

namespace trit::torch_layer {
namespace {

// Outputs first .. of one token at random, `first` a multiple of 4: gradient_random, whose words come in fours.
// `factors` has one for each, or one for all (`step` 0).
void round_at_random(const GradientRounding& rounding, std::uint64_t offset, std::int64_t token,
                     std::int64_t first, std::int64_t out_features, const float* v, const float* factors,
                     std::int64_t step, std::int64_t count, std::int8_t* q) {
  std::array<std::uint32_t, 4> words{};
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t n = first + i;
    if (n % 4 == 0) {
      words = philox(rounding.seed, offset, gradient_counter(token, n, out_features));
    }
    const float random = static_cast<float>(words[static_cast<std::size_t>(n % 4)] >> 8U) * 0x1p-24F;
    const float factor = factors[i * step];
    q[i] = factor == 0.0F ? std::int8_t{0} : round_gradient(v[i], factor, random);
  }
}

}  // namespace

void quantize_gradient_rows(Parallel&& parallel, const GradientView& view, const float* beta,
                            const GradientRounding& rounding, const GradientRowCodes& to) {
  const std::int64_t outputs = view.out_features;
  const std::int64_t width = padded_in_features(outputs);
  parallel.run(view.tokens, [&](std::int64_t m) {
    const DefaultFloatingPoint environment;
    const float* const row = view.grad + m * outputs;
    const GradientScale s = gradient_scale(std::bit_cast<float>(largest_gradient(row, beta, outputs)));
    std::int8_t* const codes = to.q + m * width;
    to.scale[m] = s.scale;
    if (rounding.stochastic) {
      std::vector<float> v(row, row + outputs);
      for (std::int64_t n = 0; beta != nullptr && n < outputs; ++n) {
        v[static_cast<std::size_t>(n)] *= beta[n];
      }
      round_at_random(rounding, rounding.offset, m, 0, outputs, v.data(), &s.factor, 0, outputs, codes);
      to.q_sum[m] = std::accumulate(codes, codes + outputs, 0);
    } else {
      to.q_sum[m] = round_gradients(row, beta, s.factor, outputs, codes);
    }
    std::fill(codes + outputs, codes + width, std::int8_t{0});
  });
}

void quantize_gradient_outputs(Parallel&& parallel, const GradientView& view, const float* token_scale,
                               std::int64_t first, const GradientRounding& rounding, std::int8_t* q,
                               float* scale) {
  constexpr std::int64_t kOutputsPerTask = 256;  // 1 KiB of floats and of maxima beside each other
  const std::int64_t outputs = view.out_features;
  parallel.run((outputs + kOutputsPerTask - 1) / kOutputsPerTask, [&](std::int64_t task) {
    const DefaultFloatingPoint environment;
    const std::int64_t begin = task * kOutputsPerTask;
    const std::int64_t count = std::min(kOutputsPerTask, outputs - begin);
    std::array<std::uint32_t, kOutputsPerTask> largest{};
    std::array<float, kOutputsPerTask> factors;
    std::array<float, kOutputsPerTask> v;
    for (std::int64_t m = 0; m < view.tokens; ++m) {
      largest_gradients(view.grad + m * outputs + begin, token_scale[m], count, largest.data());
    }
    for (std::int64_t n = 0; n < count; ++n) {
      const auto at = static_cast<std::size_t>(n);
      const GradientScale own = gradient_scale(std::bit_cast<float>(largest[at]));
      factors[at] = own.factor;
      scale[begin + n] = own.scale;
    }
    for (std::int64_t m = 0; m < view.tokens; ++m) {
      const float* const row = view.grad + m * outputs + begin;
      std::int8_t* const to = q + m * outputs + begin;
      if (rounding.stochastic) {
        std::transform(row, row + count, v.begin(), [&](float grad) { return grad * token_scale[m]; });
        round_at_random(rounding, rounding.offset + 1, first + m, begin, outputs, v.data(), factors.data(), 1,
                        count, to);
      } else {
        round_gradients(row, token_scale[m], factors.data(), count, to);
      }
    }
  });
}

bool has_exact_int8_product(const CpuKernels& kernels) {
  const Backend backend = backend_of(kernels);
  return backend != Backend::scalar && backend != Backend::avx2;
}

void scale_rows(Parallel&& parallel, const std::int32_t* sums, const float* scale, std::int64_t rows,
                std::int64_t columns, float* to) {
  parallel.run(rows, [&](std::int64_t n) {
    const DefaultFloatingPoint environment;
    scale_row(sums + n * columns, scale[n], columns, to + n * columns);
  });
}

}  // namespace trit::torch_layer

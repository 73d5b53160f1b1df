// SPDX-License-Identifier: MIT
//
// The 8-bit backward on the CPU (trit/gradient.h): gradients to int8, then dX by the ternary kernels from the
// transposed weight, and dW by LibTorch's int8 GEMM, or its float one on sums that floats hold exactly.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/_int_mm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <numeric>
#include <optional>
#include <vector>

#include "torch/arguments.h"
#include "torch/ops.h"
#include "torch/parallel.h"
#include "torch/row_kernels.h"
#include "torch/transposed_weight.h"
#include "trit/gradient.h"
#include "trit/linear.h"
#include "trit/parallel.h"

namespace trit::torch_layer {
namespace {

using torch::ScalarType;
using torch::Tensor;
using Packed = c10::intrusive_ptr<PackedWeight>;

const CpuKernels& kernels() { return cpu_kernels_for(Backend::automatic); }

GradientRounding rounding_of(bool stochastic) {
  GradientRounding rounding{.stochastic = stochastic};
  if (stochastic) {
    auto* const generator = at::get_generator_or_default<at::CPUGeneratorImpl>(
        std::nullopt, at::detail::getDefaultCPUGenerator());
    const std::lock_guard lock(generator->mutex_);
    rounding.seed = generator->random64();
  }
  return rounding;
}

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

// dX = dY · (beta t): dY to int8 per token, then the product with the transposed weight.
Tensor input_gradient(const Tensor& grad, const Tensor& rows, const Tensor& weight_scale,
                      const PackedLinear& transposed, const GradientRounding& rounding) {
  const std::int64_t tokens = rows.size(0);
  const std::int64_t outputs = rows.size(1);
  const std::int64_t width = padded_in_features(outputs);
  const float* const beta = weight_scale.size(0) == 1 ? nullptr : weight_scale.const_data_ptr<float>();
  Tensor q = at::empty({tokens, width}, rows.options().dtype(torch::kChar));
  Tensor scale = at::empty({tokens}, rows.options());
  Tensor sums = at::empty({tokens}, rows.options().dtype(torch::kInt));
  const float* const from = rows.const_data_ptr<float>();
  auto* const codes = q.mutable_data_ptr<std::int8_t>();
  auto* const scales = scale.mutable_data_ptr<float>();
  auto* const code_sums = sums.mutable_data_ptr<std::int32_t>();
  TorchParallel parallel;
  parallel.run(tokens, [&](std::int64_t m) {
    const DefaultFloatingPoint environment;
    const float* const row = from + m * outputs;
    const GradientScale s = gradient_scale(std::bit_cast<float>(largest_gradient(row, beta, outputs)));
    std::int8_t* const to = codes + m * width;
    scales[m] = s.scale;
    if (rounding.stochastic) {
      std::vector<float> v(row, row + outputs);
      for (std::int64_t n = 0; beta != nullptr && n < outputs; ++n) {
        v[static_cast<std::size_t>(n)] *= beta[n];
      }
      round_at_random(rounding, rounding.offset, m, 0, outputs, v.data(), &s.factor, 0, outputs, to);
      code_sums[m] = std::accumulate(to, to + outputs, 0);
    } else {
      code_sums[m] = round_gradients(row, beta, s.factor, outputs, to);
    }
    std::fill(to + outputs, to + width, std::int8_t{0});
  });
  Tensor grad_x = at::empty({tokens, transposed.out_features()}, grad.options());
  const DefaultFloatingPoint environment;
  transposed.product(parallel, {codes, scales, code_sums, tokens}, nullptr,
                     data_type(grad.scalar_type(), "grad"), grad_x.mutable_data_ptr());
  return grad_x;
}

// s dY in int8 per output: codes [M, N] and the scales [N]. `first` is the first token of a part.
struct OutputCodes {
  Tensor q, scale;
};
OutputCodes quantize_outputs(const Tensor& rows, const Tensor& token_scale, std::int64_t first,
                             const GradientRounding& rounding) {
  constexpr std::int64_t kOutputsPerTask = 256;  // 1 KiB of floats and of maxima beside each other
  const std::int64_t tokens = rows.size(0);
  const std::int64_t outputs = rows.size(1);
  OutputCodes result{at::empty({tokens, outputs}, rows.options().dtype(torch::kChar)),
                     at::empty({outputs}, rows.options())};
  const float* const from = rows.const_data_ptr<float>();
  const float* const s = token_scale.const_data_ptr<float>();
  auto* const codes = result.q.mutable_data_ptr<std::int8_t>();
  auto* const scales = result.scale.mutable_data_ptr<float>();
  TorchParallel().run((outputs + kOutputsPerTask - 1) / kOutputsPerTask, [&](std::int64_t task) {
    const DefaultFloatingPoint environment;
    const std::int64_t begin = task * kOutputsPerTask;
    const std::int64_t count = std::min(kOutputsPerTask, outputs - begin);
    std::array<std::uint32_t, kOutputsPerTask> largest{};
    std::array<float, kOutputsPerTask> factors;
    std::array<float, kOutputsPerTask> v;
    for (std::int64_t m = 0; m < tokens; ++m) {
      largest_gradients(from + m * outputs + begin, s[m], count, largest.data());
    }
    for (std::int64_t n = 0; n < count; ++n) {
      const auto at = static_cast<std::size_t>(n);
      const GradientScale scale = gradient_scale(std::bit_cast<float>(largest[at]));
      factors[at] = scale.factor;
      scales[begin + n] = scale.scale;
    }
    for (std::int64_t m = 0; m < tokens; ++m) {
      const float* const row = from + m * outputs + begin;
      std::int8_t* const to = codes + m * outputs + begin;
      if (rounding.stochastic) {
        std::transform(row, row + count, v.begin(), [&](float grad) { return grad * s[m]; });
        round_at_random(rounding, rounding.offset + 1, first + m, begin, outputs, v.data(), factors.data(), 1,
                        count, to);
      } else {
        round_gradients(row, s[m], factors.data(), count, to);
      }
    }
  });
  return result;
}

// gᵀ · q [N, K] in int32, exact. oneDNN adds pairs of products in 16 bits, which saturate, where the CPU has no
// int8 dot products (VNNI): there floats multiply, 1,024 tokens at a time, since 127 * 128 * 1,024 < 2^24.
Tensor exact_product(const Tensor& g, const Tensor& q) {
  const Backend backend = backend_of(kernels());
  if (backend != Backend::scalar && backend != Backend::avx2) {
    return at::_int_mm(g.t(), q);
  }
  constexpr std::int64_t kExactTokens = 1024;
  Tensor sums;
  for (std::int64_t first = 0; first < g.size(0); first += kExactTokens) {
    const std::int64_t count = std::min(kExactTokens, g.size(0) - first);
    const Tensor part =
        at::mm(g.narrow(0, first, count).t().to(torch::kFloat), q.narrow(0, first, count).to(torch::kFloat))
            .to(torch::kInt);
    sums = sums.defined() ? sums.add_(part) : part;
  }
  return sums;
}

// dW = dYᵀ · (s q)
Tensor weight_gradient(const Tensor& rows, const Tensor& q, const Tensor& token_scale,
                       std::int64_t in_features, const GradientRounding& rounding) {
  const std::int64_t outputs = rows.size(1);
  Tensor total = at::empty({outputs, in_features}, rows.options());
  if (rows.size(0) == 0) {
    return total.zero_();
  }
  Tensor part_sum;
  for (std::int64_t first = 0; first < rows.size(0); first += kMaxGradientTokens) {
    const std::int64_t count = std::min(kMaxGradientTokens, rows.size(0) - first);
    const OutputCodes codes =
        quantize_outputs(rows.narrow(0, first, count), token_scale.narrow(0, first, count), first, rounding);
    const Tensor sums = exact_product(codes.q, q.narrow(0, first, count).narrow(1, 0, in_features));
    Tensor part = first == 0 ? total : at::empty_like(total);
    const auto* const from = sums.const_data_ptr<std::int32_t>();
    const auto* const scales = codes.scale.const_data_ptr<float>();
    auto* const to = part.mutable_data_ptr<float>();
    TorchParallel().run(outputs, [&](std::int64_t n) {
      const DefaultFloatingPoint environment;
      scale_row(from + n * in_features, scales[n], in_features, to + n * in_features);
    });
    if (first > 0) {
      total.add_(part);
    }
  }
  return total;
}

template <typename Transposed>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                    std::int64_t out_features, std::int64_t in_features,
                                    const Tensor& weight_scale, ScalarType weight_dtype,
                                    std::array<bool, 2> mask, bool stochastic, const Transposed& transposed) {
  check_int8_backward(grad, q, scale, out_features, in_features);
  granularity_of(weight_scale, out_features);
  const GradientRounding rounding = rounding_of(stochastic);
  const Tensor rows = float_of(grad);
  std::tuple<Tensor, Tensor> result;
  if (mask[0]) {
    std::get<0>(result) = input_gradient(grad, rows, weight_scale, transposed(), rounding);
  }
  if (mask[1]) {
    std::get<1>(result) = weight_gradient(rows, q, float_of(scale), in_features, rounding).to(weight_dtype);
  }
  return result;
}

std::tuple<Tensor, Tensor> linear_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                const Tensor& codes, const Tensor& weight_scale,
                                                std::int64_t in_features, ScalarType weight_dtype,
                                                std::array<bool, 2> mask, bool stochastic) {
  check_codes(codes, in_features);
  const Tensor beta = float_of(weight_scale);
  std::optional<PackedLinear> prepared;
  return backward(grad, q, scale, codes.size(0), in_features, beta, weight_dtype, mask, stochastic,
                  [&]() -> const PackedLinear& {
                    TorchParallel parallel;
                    return prepared.emplace(
                        transposed_weight(kernels(), parallel, codes.contiguous(), beta, in_features));
                  });
}

std::tuple<Tensor, Tensor> linear_backward_int8_prepared(const Tensor& grad, const Tensor& q,
                                                         const Tensor& scale, const Packed& weight,
                                                         ScalarType weight_dtype, std::array<bool, 2> mask,
                                                         bool stochastic) {
  return backward(grad, q, scale, weight->out_features(), weight->in_features(), weight->scale(),
                  weight_dtype, mask, stochastic,
                  [&]() -> const PackedLinear& { return weight->cpu_transposed(); });
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CPU, m) {
  register_packed_weight_class();
  m.impl("linear_backward_int8", linear_backward_int8);
  m.impl("linear_backward_int8.prepared", linear_backward_int8_prepared);
}

}  // namespace trit::torch_layer

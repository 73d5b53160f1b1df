// SPDX-License-Identifier: MIT
//
// The 8-bit backward on the CPU (trit/gradient.h): gradients to int8, then dX by the ternary kernels from the
// transposed weight, and dW by LibTorch's int8 GEMM, or its float one on sums that floats hold exactly. What needs
// no torch of it: gradient_int8.h.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/_int_mm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>

#include "torch/arguments.h"
#include "torch/gradient_int8.h"
#include "torch/layer.h"
#include "torch/ops.h"
#include "torch/parallel.h"
#include "torch/transposed_weight.h"

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

GradientView view_of(const Tensor& rows) {
  return {rows.const_data_ptr<float>(), rows.size(0), rows.size(1)};
}

// dX = dY · (beta t): dY to int8 per token, then the product with the transposed weight.
Tensor input_gradient(const Tensor& grad, const Tensor& rows, const Tensor& weight_scale,
                      const PackedLinear& transposed, const GradientRounding& rounding) {
  const std::int64_t tokens = rows.size(0);
  const float* const beta = weight_scale.size(0) == 1 ? nullptr : weight_scale.const_data_ptr<float>();
  Tensor q = at::empty({tokens, padded_in_features(rows.size(1))}, rows.options().dtype(torch::kChar));
  Tensor scale = at::empty({tokens}, rows.options());
  Tensor sums = at::empty({tokens}, rows.options().dtype(torch::kInt));
  const GradientRowCodes codes{q.mutable_data_ptr<std::int8_t>(), scale.mutable_data_ptr<float>(),
                               sums.mutable_data_ptr<std::int32_t>()};
  quantize_gradient_rows(TorchParallel(), view_of(rows), beta, rounding, codes);
  Tensor grad_x = at::empty({tokens, transposed.out_features()}, grad.options());
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  transposed.product(parallel, {codes.q, codes.scale, codes.q_sum, tokens}, nullptr,
                     data_type(grad.scalar_type(), "grad"), grad_x.mutable_data_ptr());
  return grad_x;
}

// gᵀ · q [N, K] in int32, exact.
Tensor exact_product(const Tensor& g, const Tensor& q) {
  if (has_exact_int8_product(kernels())) {
    // _int_mm tells oneDNN how far rows are apart by their strides, which say nothing where there is one row: that of .t()
    // is 1, oneDNN refuses it, and LibTorch (2.11) returns what lay in memory.
    return at::_int_mm(g.size(1) == 1 ? g.view({1, -1}) : g.t(), q);
  }
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
  const Tensor activations = q.contiguous();
  for (std::int64_t first = 0; first < rows.size(0); first += kMaxGradientTokens) {
    const std::int64_t count = std::min(kMaxGradientTokens, rows.size(0) - first);
    const Tensor own = rows.narrow(0, first, count);
    Tensor codes = at::empty({count, outputs}, rows.options().dtype(torch::kChar));
    Tensor scale = at::empty({outputs}, rows.options());
    quantize_gradient_outputs(TorchParallel(), view_of(own), token_scale.const_data_ptr<float>() + first,
                              first, rounding, codes.mutable_data_ptr<std::int8_t>(),
                              scale.mutable_data_ptr<float>());
    const Tensor sums =
        exact_product(codes, activations.as_strided({count, in_features}, {q.size(1), 1},
                                                    activations.storage_offset() + first * q.size(1)));
    Tensor part = first == 0 ? total : at::empty_like(total);
    scale_rows(TorchParallel(), sums.const_data_ptr<std::int32_t>(), scale.const_data_ptr<float>(), outputs,
               in_features, part.mutable_data_ptr<float>());
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
                    const Tensor stored = codes.contiguous();
                    return prepared.emplace(transposed_weight(
                        kernels(), parallel,
                        ternary_view(codes.size(0), in_features, stored.const_data_ptr<std::uint8_t>(),
                                     beta.const_data_ptr<float>(), beta.numel(), 0)));
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

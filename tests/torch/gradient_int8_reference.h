// SPDX-License-Identifier: MIT
//
// The 8-bit backward by its definition (gradient.h), on tensors.
#pragma once

#include <vector>

#include "torch/ops.h"
#include "torch/reference.h"
#include "trit/gradient.h"

namespace trit::test {

using torch::Tensor;

/// One layer's backward in int8, its operands on the CPU.
struct Int8Case {
  Tensor weight;  // float [N, K], of which come
  Tensor codes, weight_scale;
  torch_layer::ops::NormQuantResult x;  // of float [M, K]
  Tensor grad;                          // dY [M, N]

  std::int64_t in_features() const { return weight.size(1); }
};

inline Int8Case int8_case(std::int64_t tokens, std::int64_t in_features, std::int64_t out_features,
                          bool per_row, torch::ScalarType dtype) {
  namespace ops = torch_layer::ops;
  Int8Case made{torch::randn({out_features, in_features}), {}, {}, {}, {}};
  made.weight_scale = ops::absmean(made.weight, per_row);
  made.codes = ops::ternarize_pack(made.weight, made.weight_scale);
  made.x = ops::norm_quant(torch::randn({tokens, in_features}), std::nullopt, true, 1e-6);
  // Rows of very different sizes, as gradients have them.
  made.grad =
      (torch::randn({tokens, out_features}) * torch::randn({tokens, 1}).mul(3).exp2() * 1e-3).to(dtype);
  return made;
}

/// dX in the gradient's type and dW in float32.
inline std::pair<Tensor, Tensor> int8_gradients(const Int8Case& layer,
                                                const GradientRounding& rounding = {}) {
  const std::int64_t tokens = layer.grad.size(0);
  const std::int64_t outputs = layer.weight.size(0);
  const std::int64_t inputs = layer.in_features();
  const Tensor grad = layer.grad.to(torch::kFloat).contiguous();
  const Tensor q = layer.x.q.narrow(1, 0, inputs).contiguous();
  std::vector<std::int8_t> t(static_cast<std::size_t>(outputs * inputs));
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(inputs));
  for (std::size_t n = 0; n < static_cast<std::size_t>(outputs); ++n) {
    unpack_row({layer.codes.const_data_ptr<std::uint8_t>() + n * row_bytes, row_bytes},
               std::span(t).subspan(n * static_cast<std::size_t>(inputs), static_cast<std::size_t>(inputs)));
  }
  const GradientProblem problem{.grad = values(grad),
                                .t = t,
                                .weight_scale = values(layer.weight_scale),
                                .q = {q.const_data_ptr<std::int8_t>(), static_cast<std::size_t>(q.numel())},
                                .token_scale = values(layer.x.scale),
                                .tokens = tokens,
                                .out_features = outputs,
                                .in_features = inputs,
                                .rounding = rounding};
  Tensor grad_x = torch::empty({tokens, inputs});
  Tensor grad_w = torch::empty({outputs, inputs});
  const auto span_of = [](Tensor& tensor) {
    return std::span(tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  };
  gradient_input_int8(problem, span_of(grad_x));
  gradient_weight_int8(problem, span_of(grad_w));
  return {grad_x.to(layer.grad.scalar_type()), grad_w};
}

}  // namespace trit::test

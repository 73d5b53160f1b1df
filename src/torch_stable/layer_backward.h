// SPDX-License-Identifier: MIT
//
// The backward of a whole layer, composed of a device's parts: one call of the dispatcher, and not four.
#pragma once

#include <tuple>

#include "torch_stable/tensors.h"

namespace trit::torch_stable {

/// trit_stable::linear_backward_int8 on a device: dX [M, K] and dW [N, K] of weight_dtype by trit/gradient.h, as
/// far as they are wanted. `rounding`: int64 [2], seed and offset of stochastic rounding, else to nearest.
std::tuple<Tensor, Tensor> linear_backward_int8_cpu(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                    const Tensor& codes, const Tensor& weight_scale,
                                                    std::int64_t in_features, ScalarType weight_dtype,
                                                    bool wants_x, bool wants_weight,
                                                    const optional<Tensor>& rounding);
std::tuple<Tensor, Tensor> linear_backward_int8_cuda(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                     const Tensor& codes, const Tensor& weight_scale,
                                                     std::int64_t in_features, ScalarType weight_dtype,
                                                     bool wants_x, bool wants_weight,
                                                     const optional<Tensor>& rounding);
/// Throws Error unless the arguments of linear_backward_int8 fit together. `q_width`: bytes of a row of q.
void check_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale, const Tensor& codes,
                         const optional<Tensor>& rounding, std::int64_t in_features, std::int64_t q_width);

/// The gradients of a layer's product: dX [M, K], before the norm, and dW; [0] where they are not wanted.
struct ProductGradients {
  Tensor input;
  Tensor weight;
};

/// The layer's gradients from products(rows of grad, whether dX is wanted, whether dW is) and the norm's backward.
template <auto* kNorm, typename Products>
std::tuple<Tensor, Tensor, Tensor> layer_gradients(const Tensor& grad, const optional<Tensor>& x,
                                                   const optional<Tensor>& norm_weight, const Tensor& rstd,
                                                   std::int64_t in_features, bool rms, bool wants_x,
                                                   bool wants_weight, bool wants_norm_weight,
                                                   const Products& products) {
  const bool wants_input = wants_x || (rms && wants_norm_weight);
  ProductGradients found = products(as_matrix(grad), wants_input, wants_weight);
  optional<Tensor> grad_norm_weight;
  if (wants_input && rms) {
    check(x.has_value(), "bit_linear_backward: a layer with a norm needs x");
    // checked: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    const Tensor values = as_matrix(*x);
    std::tie(found.input, grad_norm_weight) =
        kNorm(found.input, values, rstd, norm_weight, wants_x, wants_norm_weight);
  }
  if (wants_x && grad.dim() != 2) {
    found.input = with_sizes(found.input, sizes_with_last(grad, in_features));
  }
  return {found.input, found.weight,
          grad_norm_weight ? *grad_norm_weight : no_gradient(norm_weight ? *norm_weight : grad)};
}

/// trit_stable::bit_linear_backward from linear_backward_input, linear_backward_weight and rms_norm_backward.
template <auto* kInput, auto* kWeight, auto* kNorm>
std::tuple<Tensor, Tensor, Tensor> layer_backward(const Tensor& grad, const optional<Tensor>& x,
                                                  const optional<Tensor>& norm_weight, const Tensor& q,
                                                  const Tensor& scales, const Tensor& codes,
                                                  const Tensor& weight_scale, std::int64_t in_features,
                                                  ScalarType weight_dtype, bool rms, bool wants_x,
                                                  bool wants_weight, bool wants_norm_weight,
                                                  std::int64_t group) {
  const TokenScales tokens = token_scales(scales);
  return layer_gradients<kNorm>(
      grad, x, norm_weight, tokens.rstd, in_features, rms, wants_x, wants_weight, wants_norm_weight,
      [&](const Tensor& rows, bool input, bool weight) {
        // dW first: its operand is as large as dX, and gone when dX is made.
        const Tensor grad_weight =
            weight ? kWeight(rows, q, tokens.scale, in_features, weight_dtype) : no_gradient(grad);
        return ProductGradients{
            input ? kInput(rows, codes, weight_scale, in_features, group) : no_gradient(grad), grad_weight};
      });
}

/// trit_stable::bit_linear_backward_int8: dX in int8, and dW with `int8_weight`.
template <auto* kInt8, auto* kWeight, auto* kNorm>
std::tuple<Tensor, Tensor, Tensor> layer_backward_int8(const Tensor& grad, const optional<Tensor>& x,
                                                       const optional<Tensor>& norm_weight, const Tensor& q,
                                                       const Tensor& scales, const Tensor& codes,
                                                       const Tensor& weight_scale, std::int64_t in_features,
                                                       ScalarType weight_dtype, bool rms, bool wants_x,
                                                       bool wants_weight, bool wants_norm_weight,
                                                       bool int8_weight, const optional<Tensor>& rounding) {
  const TokenScales tokens = token_scales(scales);
  return layer_gradients<kNorm>(
      grad, x, norm_weight, tokens.rstd, in_features, rms, wants_x, wants_weight, wants_norm_weight,
      [&](const Tensor& rows, bool input, bool weight) {
        const bool both = weight && int8_weight;
        // First, as in layer_backward.
        const Tensor exact_weight =
            weight && !both ? kWeight(rows, q, tokens.scale, in_features, weight_dtype) : no_gradient(grad);
        if (!input && !both) {
          return ProductGradients{no_gradient(grad), exact_weight};
        }
        const auto [grad_x, int8_grad_weight] = kInt8(rows, q, tokens.scale, codes, weight_scale, in_features,
                                                      weight_dtype, input, both, rounding);
        return ProductGradients{grad_x, both ? int8_grad_weight : exact_weight};
      });
}

}  // namespace trit::torch_stable

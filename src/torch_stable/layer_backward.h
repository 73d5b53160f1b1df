// SPDX-License-Identifier: MIT
//
// The backward of a whole layer, composed of a device's three parts: one call of the dispatcher, and not four.
#pragma once

#include <tuple>

#include "torch_stable/tensors.h"

namespace trit::torch_stable {

/// trit_stable::bit_linear_backward from linear_backward_input, linear_backward_weight and rms_norm_backward.
template <auto* kInput, auto* kWeight, auto* kNorm>
std::tuple<Tensor, Tensor, Tensor> layer_backward(const Tensor& grad, const optional<Tensor>& x,
                                                  const optional<Tensor>& norm_weight, const Tensor& q,
                                                  const Tensor& scale, const Tensor& rstd,
                                                  const Tensor& codes, const Tensor& weight_scale,
                                                  std::int64_t in_features, ScalarType weight_dtype, bool rms,
                                                  bool wants_x, bool wants_weight, bool wants_norm_weight,
                                                  std::int64_t group) {
  const Tensor rows = as_matrix(grad);
  Tensor grad_weight = wants_weight ? kWeight(rows, q, scale, in_features, weight_dtype) : no_gradient(grad);
  optional<Tensor> grad_x;
  optional<Tensor> grad_norm_weight;
  if (wants_x || (rms && wants_norm_weight)) {
    grad_x = kInput(rows, codes, weight_scale, in_features, group);
    if (rms) {
      check(x.has_value(), "bit_linear_backward: a layer with a norm needs x");
      // checked: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
      const Tensor values = as_matrix(*x);
      std::tie(grad_x, grad_norm_weight) =
          kNorm(*grad_x, values, rstd, norm_weight, wants_x, wants_norm_weight);
    }
    if (wants_x && grad.dim() != 2) {
      grad_x = torch::stable::reshape(*grad_x, sizes_with_last(grad, in_features));
    }
  }
  return {grad_x ? *grad_x : no_gradient(grad), grad_weight,
          grad_norm_weight ? *grad_norm_weight : no_gradient(norm_weight ? *norm_weight : grad)};
}

}  // namespace trit::torch_stable

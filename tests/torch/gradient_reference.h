// SPDX-License-Identifier: MIT
//
// Gradients of the layer by autograd of the plain formulas in double, on the CPU: straight-through
// quantisation written with detach().
#pragma once

#include <cmath>

#include "torch/reference.h"

namespace trit::test {

using torch::Tensor;

struct Gradients {
  Tensor y, x, weight, bias, norm_weight;
};

inline Tensor leaf(const Tensor& tensor) { return tensor.detach().to(torch::kDouble).requires_grad_(); }
// The value of `quantised`, the gradient of `value`.
inline Tensor straight_through(const Tensor& value, const Tensor& quantised) {
  return value + (quantised - value).detach();
}

// The layer with plain ATen operations in double; codes and scales are those of the contract (float).
inline Gradients reference(nn::BitLinear& fc, const Tensor& x, const Tensor& grad_y) {
  const auto inputs = leaf(x);
  const auto weight = leaf(fc->weight);
  const auto bias = fc->bias.defined() ? leaf(fc->bias) : Tensor();
  const auto g = fc->norm ? leaf(fc->norm->weight) : Tensor();

  auto normed = inputs;
  if (fc->norm) {
    normed = inputs / (inputs.square().mean(-1, true) + fc->options.eps()).sqrt() * g;
  }
  const auto rows = x.detach().to(torch::kFloat).reshape({-1, x.size(-1)}).contiguous();
  auto quantised = torch::empty(rows.sizes(), torch::kDouble);
  const auto norm_weight = fc->norm ? fc->norm->weight.detach().to(torch::kFloat) : torch::empty({0});
  for (std::int64_t m = 0; m < rows.size(0); ++m) {
    auto q = torch::empty({rows.size(1)}, torch::kChar);
    const auto scales = norm_quant_row(
        values(rows[m]), fc->options.norm(), values(norm_weight), static_cast<float>(fc->options.eps()),
        {q.mutable_data_ptr<std::int8_t>(), static_cast<std::size_t>(q.numel())});
    quantised[m] = q.to(torch::kDouble) * static_cast<double>(scales.scale);
  }
  const auto ternary = dequantized(ternary_of(fc->weight, fc->options.scale(), fc->options.group()));

  auto y = torch::nn::functional::linear(straight_through(normed, quantised.reshape(x.sizes())),
                                         straight_through(weight, ternary), bias);
  y.backward(grad_y.to(torch::kDouble));
  return {y, inputs.grad(), weight.grad(), bias.defined() ? bias.grad() : Tensor(),
          g.defined() ? g.grad() : Tensor()};
}

// |got - want| <= tolerance * (the largest |want|). Sums of up to n products of random signs in a precision
// of rounding unit u err by about sqrt(n) u of their terms' size; 8 covers the largest of a matrix.
inline void expect_close(const Tensor& got, const Tensor& want, double unit, std::int64_t terms,
                         const char* what) {
  ASSERT_EQ(got.defined(), want.defined()) << what;
  if (!got.defined()) {
    return;
  }
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const double tolerance = 8 * unit * std::sqrt(static_cast<double>(terms));
  const double error = ((got.to(torch::kDouble) - want).abs().max() / want.abs().max()).item<double>();
  EXPECT_LT(error, tolerance) << what;
}

}  // namespace trit::test

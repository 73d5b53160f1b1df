// SPDX-License-Identifier: MIT
//
// What the tests compare with: the scalar definition (quantize.h) for bits, ATen in double for gradients.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "trit/quantize.h"
#include "trit/torch.h"

namespace trit::test {

inline std::span<const float> values(const torch::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

/// The stored form of a weight of any floating-point type. Not trit::pack: that refuses NaN, training does not.
inline TernaryMatrix ternary_of(const torch::Tensor& weight, ScaleGranularity granularity,
                                std::int64_t group = 0) {
  const auto w = weight.detach().to(torch::kFloat).contiguous();
  const std::int64_t inputs = w.size(1);
  TernaryMatrix packed{
      w.size(0), inputs, {}, absmean(values(w), w.size(0), inputs, granularity, group), group};
  const std::int64_t groups = groups_of(inputs, group);
  const std::int64_t step = group == 0 ? inputs : group;
  packed.codes.resize(static_cast<std::size_t>(w.size(0) * packed_row_bytes(inputs)));
  std::vector<std::int8_t> t(static_cast<std::size_t>(inputs));
  for (std::int64_t n = 0; n < w.size(0); ++n) {
    const auto row = static_cast<std::size_t>(n);
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto first = static_cast<std::size_t>(g * step);
      const std::size_t count = std::min(static_cast<std::size_t>(step), t.size() - first);
      ternarize_row(values(w).subspan(row * t.size() + first, count),
                    packed.scale[packed.scale.size() == 1 ? 0 : static_cast<std::size_t>(n * groups + g)],
                    std::span(t).subspan(first, count));
    }
    pack_row(t, std::span(packed.codes).subspan(row * packed_row_bytes(inputs), packed_row_bytes(inputs)));
  }
  return packed;
}

/// t * beta in double, [N, K].
inline torch::Tensor dequantized(const TernaryMatrix& matrix) {
  auto result = torch::empty({matrix.out_features, matrix.in_features}, torch::kDouble);
  auto* to = result.mutable_data_ptr<double>();
  const std::int64_t groups = groups_of(matrix.in_features, matrix.group);
  std::vector<std::int8_t> t(static_cast<std::size_t>(matrix.in_features));
  for (std::int64_t n = 0; n < matrix.out_features; ++n) {
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(matrix.in_features));
    unpack_row(std::span(matrix.codes).subspan(static_cast<std::size_t>(n) * row_bytes, row_bytes), t);
    for (std::int64_t k = 0; k < matrix.in_features; ++k) {
      const std::int64_t at = n * groups + (matrix.group == 0 ? 0 : k / matrix.group);
      *to++ = static_cast<double>(t[static_cast<std::size_t>(k)]) *
              static_cast<double>(matrix.scale[matrix.scale.size() == 1 ? 0 : static_cast<std::size_t>(at)]);
    }
  }
  return result;
}

/// trit::bit_linear_row on every row of x [M, K]; any floating-point type in, x's type out.
inline torch::Tensor bit_linear_rows(const torch::Tensor& x, const torch::Tensor& weight,
                                     const std::optional<torch::Tensor>& bias,
                                     const std::optional<torch::Tensor>& norm_weight, Norm norm, float eps,
                                     ScaleGranularity granularity, std::int64_t group = 0) {
  const auto to_float = [](const torch::Tensor& t) { return t.detach().to(torch::kFloat).contiguous(); };
  const auto rows = to_float(x);
  const auto b = bias ? to_float(*bias) : torch::empty({0});
  const auto g = norm_weight ? to_float(*norm_weight) : torch::empty({0});
  const TernaryMatrix packed = ternary_of(weight, granularity, group);
  const std::int64_t outputs = packed.out_features;
  auto y = torch::empty({rows.size(0), outputs});
  for (std::int64_t m = 0; m < rows.size(0); ++m) {
    bit_linear_row(values(rows[m]), packed.view(), norm, values(g), eps, values(b),
                   {y.mutable_data_ptr<float>() + m * outputs, static_cast<std::size_t>(outputs)});
  }
  return y.to(x.scalar_type());
}

/// Same dtype, shape and bits; a NaN equals any NaN (its payload is not part of the contract).
inline ::testing::AssertionResult same_bits(const torch::Tensor& got, const torch::Tensor& want) {
  if (got.scalar_type() != want.scalar_type() || got.sizes() != want.sizes()) {
    return ::testing::AssertionFailure()
           << got.toString() << " " << got.sizes() << ", wanted " << want.toString() << " " << want.sizes();
  }
  const auto type = got.element_size() == 4 ? torch::kInt : torch::kShort;
  const auto a = got.contiguous();
  const auto b = want.contiguous();
  const auto same = (a.view(type) == b.view(type)).logical_or(a.isnan().logical_and(b.isnan())).flatten();
  if (same.all().item<bool>()) {
    return ::testing::AssertionSuccess();
  }
  const auto first = same.logical_not().to(torch::kByte).argmax().item<std::int64_t>();
  return ::testing::AssertionFailure()
         << same.logical_not().sum().item<std::int64_t>() << " of " << same.numel()
         << " differ, the first at " << first << ": " << a.flatten()[first].item<float>() << ", wanted "
         << b.flatten()[first].item<float>();
}

inline nn::BitLinear layer(std::int64_t in_features, std::int64_t out_features, bool bias, Norm norm,
                           ScaleGranularity scale = ScaleGranularity::tensor, std::int64_t group = 0) {
  nn::BitLinear result(
      nn::BitLinearOptions(in_features, out_features).bias(bias).norm(norm).scale(scale, group));
  if (norm == Norm::rms) {
    const torch::NoGradGuard no_grad;
    result->norm->weight.uniform_(0.5, 1.5);
  }
  return result;
}

}  // namespace trit::test

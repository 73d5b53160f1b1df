// SPDX-License-Identifier: MIT
//
// The runtime's float operators beside LibTorch's, for any backend of trit::Model: what LibTorch makes of a
// case of runtime/float_cases.h, how far another fp32 result may be from it, and the comparison.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <bit>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "run_seed.h"
#include "runtime/float_cases.h"
#include "runtime/winograd_bound.h"
#include "trit/model.h"

namespace trit::test {

/// Of the backend that is tested.
struct Precision {
  double product_error = 0;                  // of each product of a convolution, relative
  double underflow = std::ldexp(1.0, -149);  // of each product and sum, absolute: the least denormal
  bool winograd = true;                      // its 3x3 convolutions may take Winograd's algorithm
};

/// LibTorch's result. `error`, in double: how far it and the backend's result may be from the true one.
/// `exact`: no sum of more than two terms came before, so the bits must be the same.
struct Expected {
  torch::Tensor y, error;
  bool exact = true;
  bool zeros_have_signs = true;  // else a zero of either sign is that of an exact result
};

/// The relative error of n roundings (Higham, Accuracy and Stability, 3.1).
inline double rounding_error(std::int64_t n) {
  const double u = std::ldexp(1.0, -24) * static_cast<double>(n);
  return u / (1 - u);
}

inline torch::Tensor finite_magnitude(const torch::Tensor& x) {
  return x.to(torch::kDouble).abs().nan_to_num(0, 0, 0);
}

inline torch::Tensor tensor_of(const ModelFile& model, const std::string& name) {
  return torch::tensor(model.floats(name)).reshape(const_cast<ModelFile&>(model).tensor(name).shape);
}

/// A conv2d or linear node.
inline Expected weighted_sums(const ModelFile& model, const nlohmann::json& node, const Expected& x,
                              const Precision& precision) {
  const std::string name = node["name"];
  const bool convolution = node["op"] == "conv2d";
  const auto weight = tensor_of(model, name + ".weight");
  const auto bias = model.has(name + ".bias") ? tensor_of(model, name + ".bias") : torch::Tensor();
  const auto apply = [&](const torch::Tensor& in, const torch::Tensor& w, const torch::Tensor& b) {
    return convolution
               ? at::conv2d(in, w, b, node["stride"].get<std::int64_t>(), node["padding"].get<std::int64_t>())
               : at::linear(in, w, b);
  };
  const std::int64_t terms = weight[0].numel();
  const auto magnitudes = weight.to(torch::kDouble).abs();
  const auto sizes = apply(finite_magnitude(x.y) + x.error, magnitudes,
                           bias.defined() ? bias.to(torch::kDouble).abs() : torch::Tensor());
  const double product_error = convolution ? precision.product_error : 0;
  auto error = apply(x.error, magnitudes, {}) + (rounding_error(terms + 2) + product_error) * sizes +
               4 * static_cast<double>(terms + 1) * precision.underflow;
  if (convolution && precision.winograd &&
      runs_winograd(x.y.size(2), x.y.size(3), weight.sizes().vec(), node["stride"].get<std::int64_t>(),
                    node["padding"].get<std::int64_t>(), model.floats(name + ".weight"))) {
    const std::int64_t padding = node["padding"];
    const auto padded =
        at::constant_pad_nd(finite_magnitude(x.y) + x.error, {padding, padding, padding, padding});
    const auto largest = at::max_pool2d(padded, 2 * kWinogradReach + 1, 1, kWinogradReach);
    error += winograd_error(weight.size(1)) *
                 at::conv2d(largest, magnitudes,
                            bias.defined() ? bias.to(torch::kDouble).abs() : torch::Tensor()) +
             winograd_underflow(weight.size(1));
  }
  return {apply(x.y, weight, bias), error, false};
}

/// For one scope: LibTorch's own GELU. oneDNN's, which it takes otherwise, is another function of infinities.
class OwnGelu {
 public:
  OwnGelu() : before_(at::globalContext().userEnabledMkldnn()) {
    at::globalContext().setUserEnabledMkldnn(false);
  }
  ~OwnGelu() { at::globalContext().setUserEnabledMkldnn(before_); }
  OwnGelu(const OwnGelu&) = delete;
  OwnGelu& operator=(const OwnGelu&) = delete;

 private:
  bool before_;
};

/// A batch_norm node. Where it is a part of weights, each product is off by 2 u more, which is less than what
/// their sum has as its error (src/runtime/ops/batch_norm.cpp).
inline Expected batch_normalised(const ModelFile& model, const nlohmann::json& node, const Expected& x,
                                 const Precision& precision) {
  const std::string name = node["name"];
  const auto optional = [&](const char* tensor) {
    return model.has(name + tensor) ? tensor_of(model, name + tensor) : torch::Tensor();
  };
  const auto mean = tensor_of(model, name + ".running_mean");
  const auto variance = tensor_of(model, name + ".running_var");
  const auto weight = optional(".weight");
  const auto bias = optional(".bias");
  const double eps = static_cast<double>(node["eps"].get<float>());
  auto sizes = std::vector<std::int64_t>(static_cast<std::size_t>(x.y.dim()), 1);
  sizes[1] = x.y.size(1);
  auto scale = 1 / (variance.to(torch::kDouble) + eps).sqrt();
  scale = weight.defined() ? scale * weight.to(torch::kDouble) : scale;
  auto shift = -mean.to(torch::kDouble) * scale;
  shift = bias.defined() ? shift + bias.to(torch::kDouble) : shift;
  scale = scale.abs().reshape(sizes);
  // LibTorch rounds 1 / sqrt(var + eps), the scale, mean * scale and the shift.
  const auto size = (finite_magnitude(x.y) + x.error) * scale +
                    (mean.to(torch::kDouble).abs().reshape(sizes) * scale + shift.abs().reshape(sizes));
  const auto error = 2 * scale.clamp_min(1) * x.error + rounding_error(8) * size + 4 * precision.underflow;
  return {at::batch_norm(x.y, weight, bias, mean, variance, false, 0, eps, false), error, false};
}

/// The case's graph on x [batch, ...], operation by operation.
inline Expected libtorch_result(const FloatCase& test_case, const torch::Tensor& x,
                                const Precision& precision) {
  std::vector<Expected> values{{x, torch::zeros_like(x, torch::kDouble), true}};
  const auto& nodes = test_case.model.graph["nodes"];
  for (std::size_t n = 1; n < nodes.size(); ++n) {
    const auto& node = nodes[n];
    const std::string op = node["op"];
    const Expected& in = values[node["inputs"][0].get<std::size_t>()];
    Expected out = in;
    if (op == "conv2d" || op == "linear") {
      out = weighted_sums(test_case.model, node, in, precision);
    } else if (op == "bit_linear") {
      out.y = torch::empty({x.size(0), 0});
      std::vector<torch::Tensor> rows;
      for (const auto& row : in.y.reshape({-1, in.y.size(-1)}).unbind()) {
        const float* const data = row.const_data_ptr<float>();
        rows.push_back(
            torch::tensor(test_case.model.bit_linear_reference(node["name"], {data, data + row.numel()})));
      }
      auto sizes = in.y.sizes().vec();
      sizes.back() = rows[0].numel();
      out.y = torch::stack(rows).reshape(sizes);
      out.error = torch::zeros_like(out.y, torch::kDouble);
    } else if (op == "relu") {
      out.y = at::relu(in.y);
    } else if (op == "gelu") {
      const OwnGelu scope;
      out.y = at::gelu(in.y, node["approximate"].get<std::string>());
      out.error = 1.13 * in.error + 5 * std::ldexp(1.0, -24) * (finite_magnitude(in.y) + in.error) +
                  precision.underflow;  // src/runtime/ops/gelu.h
      out.exact = false;
    } else if (op == "batch_norm") {
      out = batch_normalised(test_case.model, node, in, precision);
    } else if (op == "max_pool2d") {
      out.y = at::max_pool2d(in.y, node["kernel"].get<std::int64_t>(), node["stride"].get<std::int64_t>());
      out.error =
          at::max_pool2d(in.error, node["kernel"].get<std::int64_t>(), node["stride"].get<std::int64_t>());
    } else if (op == "avg_pool2d") {
      const std::int64_t kernel = node["kernel"];
      const auto mean = [&](const torch::Tensor& t) {
        return at::avg_pool2d(t, kernel, node["stride"].get<std::int64_t>());
      };
      out.y = mean(in.y);
      out.error = mean(in.error) +
                  rounding_error(kernel * kernel + 1) * mean(finite_magnitude(in.y) + in.error) +
                  2 * precision.underflow;
      out.zeros_have_signs = false;  // LibTorch gives +0.0 where a negative mean underflows
    } else if (op == "add") {
      const Expected& other = values[node["inputs"][1].get<std::size_t>()];
      out.y = in.y + other.y;
      out.error = in.error + other.error;
      out.error = out.error + rounding_error(1) * (finite_magnitude(out.y) + out.error);
      out.exact = in.exact && other.exact;
      out.zeros_have_signs = in.zeros_have_signs && other.zeros_have_signs;
    } else if (op == "flatten") {
      out.y = in.y.flatten(1);
      out.error = in.error.flatten(1);
    } else {
      throw std::logic_error("no reference for " + op);
    }
    values.push_back(std::move(out));
  }
  return values.back();
}

/// NaN and infinities at the same places; the same bits where the result is exact (a NaN's own bits are
/// free), else finite values within both results' errors.
inline ::testing::AssertionResult agrees(const Expected& wanted, std::span<const float> y) {
  const auto reference = wanted.y.contiguous();
  const auto error = wanted.error.contiguous();
  if (static_cast<std::int64_t>(y.size()) != reference.numel()) {
    return ::testing::AssertionFailure() << y.size() << " values, wanted " << reference.numel();
  }
  const float* const w = reference.const_data_ptr<float>();
  const double* const e = error.const_data_ptr<double>();
  for (std::size_t i = 0; i < y.size(); ++i) {
    const bool same_bits = std::bit_cast<std::uint32_t>(y[i]) == std::bit_cast<std::uint32_t>(w[i]);
    const bool within = !wanted.exact && std::isfinite(y[i]) && std::isfinite(w[i]) &&
                        std::fabs(static_cast<double>(y[i]) - static_cast<double>(w[i])) <= 2 * e[i];
    const bool zeros = !wanted.zeros_have_signs && y[i] == 0 && w[i] == 0;
    if (!same_bits && !zeros && !within && !(std::isnan(y[i]) && std::isnan(w[i]))) {
      return ::testing::AssertionFailure() << "value " << i << " is " << y[i] << ", LibTorch's is " << w[i]
                                           << (wanted.exact ? ", wanted its bits" : "") << ", error " << e[i];
    }
  }
  return ::testing::AssertionSuccess();
}

/// One input of a case, as LibTorch sees it.
inline torch::Tensor as_tensor(const FloatCase& test_case, std::vector<float>& x) {
  Shape shape = test_case.model.graph["input"]["shape"].get<Shape>();
  shape.insert(shape.begin(), test_case.batch);
  return torch::from_blob(x.data(), shape);
}

}  // namespace trit::test

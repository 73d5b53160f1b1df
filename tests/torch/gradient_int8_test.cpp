// SPDX-License-Identifier: MIT
//
// The 8-bit backward on the CPU: the bits of its definition by every backend, what bad gradients do, and how far
// it is from the exact one.
#include <ATen/CPUGeneratorImpl.h>

#include <limits>
#include <string>

#include "environment_variable.h"
#include "torch/gradient_int8_reference.h"
#include "trit/backend.h"

namespace trit::test {
namespace {

namespace ops = torch_layer::ops;
using nn::Backward;

std::pair<Tensor, Tensor> backward(const Int8Case& layer, bool stochastic = false) {
  const auto [grad_x, grad_w] =
      ops::linear_backward_int8(layer.grad, layer.x.q, layer.x.scale, layer.codes, layer.weight_scale,
                                layer.in_features(), torch::kFloat, {true, true}, stochastic);
  return {grad_x, grad_w};
}

TEST(GradientInt8, HasTheBitsOfTheDefinition) {
  torch::manual_seed(41);
  for (const std::string& backend : available_backends()) {
    const EnvironmentVariable choice("TRIT_BACKEND", backend.c_str());
    for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
      for (const bool per_row : {false, true}) {
        for (const auto& [tokens, inputs, outputs] : {std::array<std::int64_t, 3>{1, 1, 1},
                                                      {3, 9, 5},
                                                      {19, 300, 70},
                                                      {40, 30, 1},  // a single row of dW
                                                      {1, 40, 30},
                                                      {130, 67, 258},
                                                      {2, 1030, 33}}) {
          SCOPED_TRACE(backend + ", " + c10::toString(dtype) + (per_row ? ", per row, " : ", ") +
                       std::to_string(tokens) + " x " + std::to_string(inputs) + " -> " +
                       std::to_string(outputs));
          Int8Case layer = int8_case(tokens, inputs, outputs, per_row, dtype);
          if (tokens > 2) {
            layer.grad[1].zero_();
            layer.grad[2][0] = std::numeric_limits<float>::quiet_NaN();
          }
          const auto want = int8_gradients(layer);
          const auto found = backward(layer);
          EXPECT_TRUE(same_bits(found.first, want.first)) << "dX";
          EXPECT_TRUE(same_bits(found.second, want.second)) << "dW";
          Int8Case columns = layer;
          columns.x.q = layer.x.q.t().contiguous().t();
          EXPECT_TRUE(same_bits(backward(columns).second, want.second)) << "dW of a q by columns";
          const auto packed = c10::make_intrusive<torch_layer::PackedWeight>(layer.codes, layer.weight_scale,
                                                                             layer.in_features());
          const auto [grad_x, grad_w] = ops::linear_backward_int8(
              layer.grad, layer.x.q, layer.x.scale, packed, torch::kFloat, {true, false}, false);
          EXPECT_TRUE(same_bits(grad_x, want.first)) << "dX of a packed weight";
          EXPECT_FALSE(grad_w.defined());
        }
      }
    }
  }
}

// All codes at their extremes: 127 against +1, and 127 * 127 summed over more tokens than 16-bit pairs or one
// exact float product hold.
TEST(GradientInt8, SumsAreExactAtTheExtremes) {
  for (const std::string& backend : available_backends()) {
    const EnvironmentVariable choice("TRIT_BACKEND", backend.c_str());
    Int8Case layer = int8_case(2500, 36, 20, false, torch::kFloat);
    layer.weight.fill_(1);
    layer.weight_scale = ops::absmean(layer.weight, false);
    layer.codes = ops::ternarize_pack(layer.weight, layer.weight_scale);
    layer.x = ops::norm_quant(torch::ones({2500, 36}), std::nullopt, false, 1e-6);
    layer.grad.fill_(-1);
    const auto want = int8_gradients(layer);
    const auto found = backward(layer);
    EXPECT_TRUE(same_bits(found.first, want.first)) << backend;
    EXPECT_TRUE(same_bits(found.second, want.second)) << backend;
  }
}

TEST(GradientInt8, LayersAreCloseToTheExactBackward) {
  torch::manual_seed(42);
  for (const Norm norm : {Norm::none, Norm::rms}) {
    for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row}) {
      auto fc = layer(300, 200, true, norm, scale);
      const auto input = torch::randn({64, 300});
      const auto grad_y = torch::randn({64, 200});
      std::vector<Tensor> of_x;
      std::vector<Tensor> of_weight;
      for (const Backward kind : {Backward::exact, Backward::int8_input, Backward::int8_all}) {
        fc->options.backward(kind);
        fc->zero_grad();
        auto x = input.clone().requires_grad_();
        fc(x).backward(grad_y);
        of_x.push_back(x.grad());
        of_weight.push_back(fc->weight.grad().clone());
      }
      const auto difference = [](const Tensor& a, const Tensor& b) {
        return ((a - b).norm() / b.norm()).item<double>();
      };
      // Rounding to a unit of max / 127 of normal values errs by about 0.3 units: 0.3 * 3 / 127 = 0.7 %.
      EXPECT_LT(difference(of_x[1], of_x[0]), 0.015);
      EXPECT_GT(difference(of_x[1], of_x[0]), 1e-4);
      EXPECT_TRUE(same_bits(of_x[2], of_x[1]));
      EXPECT_TRUE(same_bits(of_weight[1], of_weight[0])) << "int8_input changed dW";
      EXPECT_LT(difference(of_weight[2], of_weight[0]), 0.015);
      EXPECT_GT(difference(of_weight[2], of_weight[0]), 1e-4);
    }
  }
}

TEST(GradientInt8, ABadGradientIsSeen) {
  torch::manual_seed(43);
  auto fc = layer(50, 20, false, Norm::rms);
  fc->options.backward(Backward::int8_all);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto x = torch::randn({4, 50}, torch::requires_grad());
    auto grad_y = torch::randn({4, 20});
    grad_y[2][3] = bad;
    fc->zero_grad();
    fc(x).backward(grad_y);
    EXPECT_TRUE(x.grad()[2].isnan().all().item<bool>());
    EXPECT_TRUE(x.grad()[1].isfinite().all().item<bool>());
    EXPECT_TRUE(fc->weight.grad()[3].isnan().all().item<bool>());
    EXPECT_TRUE(fc->weight.grad()[4].isfinite().all().item<bool>());
    EXPECT_TRUE(fc->norm->weight.grad().isnan().any().item<bool>());
  }
}

TEST(GradientInt8, RoundsAtRandomAsTheGeneratorSays) {
  torch::manual_seed(44);
  Int8Case layer = int8_case(40, 64, 50, false, torch::kFloat);
  const auto exact = int8_gradients(layer);
  torch::manual_seed(5);
  at::Generator generator = at::detail::createCPUGenerator(5);
  const std::uint64_t seed = at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
  const auto first = backward(layer, true);
  const auto want = int8_gradients(layer, {true, seed, 0});
  EXPECT_TRUE(same_bits(first.first, want.first) && same_bits(first.second, want.second));
  const auto second = backward(layer, true);
  torch::manual_seed(5);
  const auto again = backward(layer, true);
  EXPECT_TRUE(same_bits(again.first, first.first) && same_bits(again.second, first.second));
  EXPECT_FALSE(torch::equal(first.first, second.first));
  EXPECT_FALSE(torch::equal(first.second, second.second));
  // The mean of many is the product without rounding.
  Tensor mean_x = torch::zeros_like(exact.first);
  Tensor mean_w = torch::zeros_like(exact.second);
  constexpr int kCount = 300;
  for (int i = 0; i < kCount; ++i) {
    const auto one = backward(layer, true);
    mean_x += one.first / kCount;
    mean_w += one.second / kCount;
  }
  const auto dx = ops::linear_backward_input(layer.grad, layer.codes, layer.weight_scale, 64);
  const auto dw = ops::linear_backward_weight(layer.grad, layer.x.q, layer.x.scale, 64);
  const auto difference = [](const Tensor& a, const Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(difference(mean_x, dx), 0.25 * difference(first.first, dx));
  EXPECT_LT(difference(mean_w, dw), 0.25 * difference(first.second, dw));
}

TEST(GradientInt8, EmptyBatchesAndWrongShapes) {
  auto fc = layer(12, 7, true, Norm::rms);
  fc->options.backward(Backward::int8_all);
  auto x = torch::randn({0, 12}, torch::requires_grad());
  fc(x).sum().backward();
  EXPECT_EQ(x.grad().sizes(), x.sizes());
  EXPECT_EQ(fc->weight.grad().abs().sum().item<float>(), 0.0F);
  Int8Case layer = int8_case(3, 12, 7, false, torch::kFloat);
  layer.grad = torch::randn({3, 8});
  EXPECT_THROW(backward(layer), c10::Error);
  EXPECT_THROW(ops::bit_linear(torch::randn({2, 12}), layer.weight, std::nullopt, std::nullopt, true, 1e-6,
                               false, {static_cast<Backward>(7), false}),
               c10::Error);
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// Gradients against autograd of the plain formulas in double: straight-through quantisation written with
// detach().
#include <algorithm>
#include <cstdint>
#include <vector>

#include "torch/gradient_reference.h"
#include "torch/new_pages.h"
#include "torch/ops.h"
#include "torch/parallel.h"
#include "torch/weight_tile.h"

namespace trit::test {
namespace {

void check(nn::BitLinear fc, const Tensor& input, double unit) {
  auto x = input.detach().clone().requires_grad_();
  const auto y = fc(x);
  const auto grad_y = torch::randn(y.sizes()).to(y.scalar_type());
  y.backward(grad_y);
  const auto want = reference(fc, input, grad_y);
  const std::int64_t tokens = input.numel() / input.size(-1);
  expect_close(y.detach(), want.y.detach(), std::max(unit, std::ldexp(1.0, -22)), 1, "y");
  expect_close(x.grad(), want.x, unit, fc->options.out_features() + 8, "x");
  expect_close(fc->weight.grad(), want.weight, unit, tokens + 8, "weight");
  expect_close(fc->bias.defined() ? fc->bias.grad() : Tensor(), want.bias, unit, tokens + 8, "bias");
  expect_close(fc->norm ? fc->norm->weight.grad() : Tensor(), want.norm_weight, unit,
               fc->options.out_features() + tokens + 8, "norm.weight");
  EXPECT_EQ(x.grad().scalar_type(), input.scalar_type());
}

struct Scales {
  ScaleGranularity granularity;
  std::int64_t group = 0;
};
class Gradient : public ::testing::TestWithParam<std::tuple<Norm, bool, Scales>> {};

TEST_P(Gradient, AgreesWithAutogradOfTheFormulas) {
  const auto [norm, bias, scales] = GetParam();
  const ScaleGranularity scale = scales.granularity;
  const std::int64_t group = scales.group;
  torch::manual_seed(11);
  constexpr double kFloatUnit = 0x1p-24;
  constexpr double kHalfUnit = 0x1p-11;
  constexpr double kBrainUnit = 0x1p-8;
  for (const auto& [in_features, out_features] : {std::pair{9, 4}, {300, 70}, {1027, 33}, {70, 600}}) {
    SCOPED_TRACE(std::to_string(in_features) + " -> " + std::to_string(out_features));
    check(layer(in_features, out_features, bias, norm, scale, group), torch::randn({19, in_features}),
          kFloatUnit);
    check(layer(in_features, out_features, bias, norm, scale, group), torch::randn({3, 2, 5, in_features}),
          kFloatUnit);
    check(layer(in_features, out_features, bias, norm, scale, group), torch::randn({in_features}),
          kFloatUnit);
    check(layer(in_features, out_features, bias, norm, scale, group),
          torch::randn({6, in_features}).to(torch::kHalf), kHalfUnit);
    check(layer(in_features, out_features, bias, norm, scale, group),
          torch::randn({6, in_features}).to(torch::kBFloat16), kBrainUnit);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Gradient,
                         ::testing::Combine(::testing::Values(Norm::none, Norm::rms), ::testing::Bool(),
                                            ::testing::Values(Scales{ScaleGranularity::tensor},
                                                              Scales{ScaleGranularity::row},
                                                              Scales{ScaleGranularity::group, 128},
                                                              Scales{ScaleGranularity::group, 96})));

TEST(GradientTiles, ManyTilesOfTheWeight) {
  // 8192 outputs make tiles 1024 columns wide (weight_tile.h): 2100 inputs are two whole ones and a rest.
  torch::manual_seed(12);
  ASSERT_LT(torch_layer::tile_columns(8192, 2100), 2100);
  check(layer(2100, 8192, false, Norm::none), torch::randn({5, 2100}), 0x1p-24);
  // Groups of 96 begin and end inside of tiles.
  check(layer(2100, 8192, false, Norm::none, ScaleGranularity::group, 96), torch::randn({5, 2100}), 0x1p-24);
  check(layer(2100, 8192, false, Norm::none, ScaleGranularity::group, 96),
        torch::randn({5, 2100}).to(torch::kBFloat16), 0x1p-8);
}

TEST(NewPages, KeepWhatIsThere) {
  const std::int64_t bytes = std::int64_t{33} << 20;
  std::vector<std::uint8_t> memory(static_cast<std::size_t>(bytes) + 9, 7);
  torch_layer::TorchParallel parallel;
  torch_layer::take_new_pages(parallel, memory.data() + 5, bytes);  // neither end on a page
  EXPECT_EQ(std::count(memory.begin(), memory.end(), 7), bytes + 9);
}

// Scales [1, tokens] are as good as [tokens], whichever product the type takes.
TEST(GradientOfWeight, TakesScalesInARow) {
  torch::manual_seed(5);
  const auto x = torch_layer::ops::norm_quant(torch::randn({6, 20}), std::nullopt, true, 1e-6);
  for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const Tensor grad = torch::randn({6, 6}).to(type);
    const Tensor wanted = torch_layer::ops::linear_backward_weight(grad, x.q, x.scale, 20);
    EXPECT_TRUE(
        same_bits(torch_layer::ops::linear_backward_weight(grad, x.q, x.scale.unsqueeze(0), 20), wanted));
  }
}

TEST(GradientOfX, IsTheProductWithTheTernaryWeight) {
  torch::manual_seed(13);
  auto fc = layer(50, 20, false, Norm::none);
  auto x = torch::randn({4, 50}, torch::requires_grad());
  const auto grad_y = torch::randn({4, 20});
  fc(x).backward(grad_y);
  const auto beta = fc->weight.detach().abs().mean();
  const auto t = (fc->weight.detach() / beta).round().clamp(-1, 1);
  EXPECT_TRUE(torch::allclose(x.grad(), grad_y.mm(t * beta), 1e-5, 1e-6));
}

TEST(GradientWanted, OnlyWhatIsAskedFor) {
  torch::manual_seed(14);
  auto fc = layer(50, 20, true, Norm::rms);
  const auto x = torch::randn({4, 50});
  fc(x).sum().backward();  // x needs none
  EXPECT_TRUE(fc->weight.grad().defined() && fc->bias.grad().defined() && fc->norm->weight.grad().defined());
  fc->zero_grad();
  fc->weight.requires_grad_(false);
  fc->norm->weight.requires_grad_(false);
  auto leaf_x = x.clone().requires_grad_();
  fc(leaf_x).sum().backward();
  EXPECT_TRUE(leaf_x.grad().defined() && fc->bias.grad().defined());
  EXPECT_FALSE(fc->weight.grad().defined() || fc->norm->weight.grad().defined());
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(fc(leaf_x).requires_grad());
}

TEST(GradientBadRow, ReachesTheWeightAsNaN) {
  auto fc = layer(50, 20, false, Norm::rms);
  auto x = torch::randn({4, 50}, torch::requires_grad());
  x.data()[2][0] = std::numeric_limits<float>::infinity();
  fc(x).sum().backward();
  EXPECT_TRUE(fc->weight.grad().isnan().all().item<bool>());  // dYᵀ · (s q) with s = NaN in one row
  EXPECT_TRUE(x.grad()[0].isfinite().all().item<bool>());
}

TEST(GradientTwice, IsAClearError) {
  for (const bool whole_layer : {true, false}) {
    auto fc = layer(50, 20, false, Norm::rms);
    auto x = torch::randn({4, 50}, torch::requires_grad());
    const auto y = whole_layer ? fc(x) : fc->norm(x);
    const auto first = torch::autograd::grad({y.square().sum()}, {x}, {}, true, true)[0];
    try {
      first.sum().backward();
      FAIL() << "no error";
    } catch (const c10::Error& error) {
      EXPECT_NE(std::string(error.what()).find("double backward"), std::string::npos) << error.what();
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("double backward"), std::string::npos) << error.what();
    }
  }
}

TEST(GradientThreads, DoNotChangeTheNormsGradient) {
  torch::manual_seed(15);
  nn::RMSNorm norm(513);
  const auto x = torch::randn({67, 513});
  const auto grad_y = torch::randn({67, 513});
  const int threads = at::get_num_threads();
  Tensor want;
  for (const int count : {1, 2, 3, 7}) {
    at::set_num_threads(count);
    norm->zero_grad();
    norm(x).backward(grad_y);
    if (!want.defined()) {
      want = norm->weight.grad().clone();
    }
    EXPECT_TRUE(same_bits(norm->weight.grad(), want));
  }
  at::set_num_threads(threads);
}

TEST(GradientNorm, StandaloneNormAgreesWithAutograd) {
  torch::manual_seed(16);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    nn::RMSNorm norm(300);
    const auto input = torch::randn({7, 300}).to(dtype);
    const auto grad_y = torch::randn({7, 300}).to(dtype);
    auto x = input.clone().requires_grad_();
    norm(x).backward(grad_y);
    const auto wide = leaf(input);
    const auto g = leaf(norm->weight);
    (wide / (wide.square().mean(-1, true) + 1e-6).sqrt() * g).backward(grad_y.to(torch::kDouble));
    const double unit = dtype == torch::kFloat ? 0x1p-24 : 0x1p-8;
    expect_close(x.grad(), wide.grad(), unit, 4, "x");
    expect_close(norm->weight.grad(), g.grad(), 0x1p-24, 7, "weight");
  }
}

// Warm-up: lambda blends both operands; gradients are those of the float layer at the blended operands.
TEST(WarmUp, BlendsFromTheFloatLayerToTheTernaryOne) {
  torch::manual_seed(17);
  auto fc = layer(128, 16, true, Norm::rms);
  const auto x = torch::randn({6, 128});
  const auto ternary = fc(x).detach();
  const auto plain = torch::nn::functional::linear(fc->norm(x), fc->weight, fc->bias).detach();
  fc->options.lambda(0.0);
  EXPECT_TRUE(torch::equal(fc(x).detach(), plain));
  fc->options.lambda(1.0 - 1e-7);
  EXPECT_TRUE(torch::allclose(fc(x).detach(), ternary, 1e-4, 1e-5));
  double previous = 0;
  for (const double lambda : {0.25, 0.5, 0.75, 1.0}) {
    fc->options.lambda(lambda);
    const double distance = (fc(x).detach() - plain).norm().item<double>();
    EXPECT_GT(distance, previous);
    previous = distance;
  }
  fc->options.lambda(0.5);
  fc(x).sum().backward();
  const auto blended = fc->norm(x).detach();
  EXPECT_EQ(fc->weight.grad().sizes(), fc->weight.sizes());
  EXPECT_LT((fc->weight.grad()[0] - blended.sum(0)).abs().max().item<double>(), 0.1);
}

}  // namespace
}  // namespace trit::test

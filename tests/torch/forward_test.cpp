// SPDX-License-Identifier: MIT
//
// y of the layer against the scalar definition, bit for bit.
#include <cmath>
#include <limits>
#include <tuple>

#include "torch/ops.h"
#include "torch/reference.h"
#include "trit/backend.h"

namespace trit::test {
namespace {

using torch::Tensor;

Tensor reference(nn::BitLinear& fc, const Tensor& x) {
  const auto rows = x.reshape({-1, x.size(-1)});
  auto sizes = x.sizes().vec();
  sizes.back() = fc->options.out_features();
  return bit_linear_rows(rows, fc->weight, fc->bias.defined() ? std::optional(fc->bias) : std::nullopt,
                         fc->norm ? std::optional(fc->norm->weight) : std::nullopt, fc->options.norm(),
                         static_cast<float>(fc->options.eps()), fc->options.scale())
      .reshape(sizes);
}

using Case = std::tuple<torch::ScalarType, Norm, bool, ScaleGranularity>;
class Forward : public ::testing::TestWithParam<Case> {};

TEST_P(Forward, HasTheBitsOfTheDefinition) {
  const auto [dtype, norm, bias, scale] = GetParam();
  torch::manual_seed(1);
  for (const auto& [in_features, out_features] :
       {std::pair{1, 1}, {5, 3}, {255, 17}, {600, 5}, {1030, 130}}) {
    auto fc = layer(in_features, out_features, bias, norm, scale);
    for (const std::int64_t tokens : {1, 2, 7, 33}) {
      const auto x = (torch::randn({tokens, in_features}) * 3).to(dtype);
      EXPECT_TRUE(same_bits(fc(x).detach(), reference(fc, x)))
          << in_features << " -> " << out_features << ", " << tokens << " tokens";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Forward,
                         ::testing::Combine(::testing::Values(torch::kFloat, torch::kHalf, torch::kBFloat16),
                                            ::testing::Values(Norm::none, Norm::rms), ::testing::Bool(),
                                            ::testing::Values(ScaleGranularity::tensor,
                                                              ScaleGranularity::row)));

TEST(ForwardShapes, AnyNumberOfDimensionsAndAnyStrides) {
  torch::manual_seed(2);
  auto fc = layer(20, 6, true, Norm::rms);
  const auto whole = torch::randn({2, 3, 4, 20});
  EXPECT_TRUE(same_bits(fc(whole).detach(), reference(fc, whole)));
  EXPECT_EQ(fc(whole[0][0][0]).sizes(), torch::IntArrayRef({6}));
  const auto transposed = torch::randn({20, 9}).t();
  EXPECT_TRUE(same_bits(fc(transposed).detach(), reference(fc, transposed)));
  const auto strided = torch::randn({9, 40}).narrow(1, 7, 20);
  EXPECT_TRUE(same_bits(fc(strided).detach(), reference(fc, strided)));
  const auto repeated = torch::randn({1, 20}).expand({5, 20});
  EXPECT_TRUE(same_bits(fc(repeated).detach(), reference(fc, repeated)));
  const auto every_other = torch::randn({9, 40}).slice(1, 0, 40, 2);
  EXPECT_TRUE(same_bits(fc(every_other).detach(), reference(fc, every_other)));
}

TEST(ForwardShapes, EmptyBatch) {
  auto fc = layer(20, 6, true, Norm::rms);
  auto x = torch::empty({0, 20}, torch::requires_grad());
  auto y = fc(x);
  EXPECT_EQ(y.sizes(), torch::IntArrayRef({0, 6}));
  EXPECT_EQ(fc(torch::empty({3, 0, 20})).sizes(), torch::IntArrayRef({3, 0, 6}));
  y.sum().backward();
  EXPECT_EQ(x.grad().sizes(), torch::IntArrayRef({0, 20}));
  EXPECT_TRUE(fc->weight.grad().eq(0).all().item<bool>());
  EXPECT_TRUE(fc->norm->weight.grad().eq(0).all().item<bool>());
}

TEST(ForwardErrors, NameWhatWasFound) {
  auto fc = layer(20, 6, true, Norm::rms);
  const auto message = [&](const Tensor& x) -> std::string {
    try {
      fc(x);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "no error";
  };
  EXPECT_NE(message(torch::zeros({2, 21})).find("[2, 21]"), std::string::npos);
  EXPECT_NE(message(torch::zeros({2, 20}, torch::kDouble)).find("Double"), std::string::npos);
  EXPECT_NE(message(torch::zeros({2, 20}, torch::kInt)).find("Int"), std::string::npos);
  EXPECT_NE(message(torch::tensor(1.0F)), "no error");
  EXPECT_THROW(nn::BitLinear(0, 3), c10::Error);
  EXPECT_THROW(nn::BitLinear(3, 0), c10::Error);
  EXPECT_THROW(nn::RMSNorm(0), c10::Error);
  fc->options.lambda(1.5);
  EXPECT_NE(message(torch::zeros({2, 20})).find("lambda"), std::string::npos);
}

TEST(ForwardValues, BadRowsStayAlone) {
  torch::manual_seed(3);
  auto fc = layer(300, 9, true, Norm::rms);
  auto x = torch::randn({5, 300});
  x[1][3] = std::numeric_limits<float>::quiet_NaN();
  x[2][7] = -std::numeric_limits<float>::infinity();
  x[3][0] = 1e20F;
  const auto y = fc(x).detach();
  EXPECT_TRUE(same_bits(y, reference(fc, x)));
  EXPECT_TRUE(y.slice(0, 1, 4).isnan().all().item<bool>());
  EXPECT_TRUE(y[0].isfinite().all().item<bool>() && y[4].isfinite().all().item<bool>());
}

TEST(ForwardValues, NotFiniteWeightsReachY) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row}) {
      auto fc = layer(300, 9, false, Norm::rms, scale);
      {
        const torch::NoGradGuard no_grad;
        fc->weight[4][5] = bad;
      }
      const auto x = torch::randn({3, 300});
      const auto y = fc(x).detach();
      EXPECT_TRUE(same_bits(y, reference(fc, x)));
      EXPECT_TRUE(y.select(1, 4).isnan().all().item<bool>());
      EXPECT_EQ(y.select(1, 3).isnan().all().item<bool>(), scale == ScaleGranularity::tensor);
    }
  }
}

TEST(ForwardValues, FlushedDenormalsAndThreadsChangeNothing) {
  torch::manual_seed(4);
  auto fc = layer(1000, 300, true, Norm::rms);
  auto x = torch::randn({37, 1000});
  x.select(0, 3).mul_(1e-39F);  // denormal inputs
  const auto want = reference(fc, x);
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    for (const bool flush : {false, true}) {
      at::globalContext().setFlushDenormal(flush);
      fc->reset_parameters();
      torch::manual_seed(5);
      const auto y = fc(x).detach();
      at::globalContext().setFlushDenormal(false);
      EXPECT_TRUE(same_bits(y, reference(fc, x))) << count << " threads, flush " << flush;
    }
  }
  at::set_num_threads(threads);
}

TEST(ForwardDtypes, HalfWeightsAreConvertedFirst) {
  torch::manual_seed(6);
  for (const auto dtype : {torch::kHalf, torch::kBFloat16}) {
    auto fc = layer(260, 12, true, Norm::rms);
    fc->to(dtype);
    for (const auto x_type : {dtype, torch::kFloat}) {
      const auto x = torch::randn({4, 260}).to(x_type);
      EXPECT_TRUE(same_bits(fc(x).detach(), reference(fc, x)));
    }
  }
}

TEST(ForwardAutocast, YHasTheAutocastDtypeAndTheParametersStayFloat) {
  torch::manual_seed(7);
  auto fc = layer(260, 12, true, Norm::rms);
  const auto x = torch::randn({4, 260});
  for (const auto dtype : {torch::kHalf, torch::kBFloat16}) {
    const amp::AutocastGuard autocast(torch::kCPU, dtype);
    const auto y = fc(x).detach();
    EXPECT_TRUE(same_bits(y, reference(fc, x.to(dtype))));
    fc(x).sum().backward();
    EXPECT_EQ(fc->weight.grad().scalar_type(), torch::kFloat);
    EXPECT_EQ(fc->norm->weight.grad().scalar_type(), torch::kFloat);
  }
}

TEST(ForwardMeta, ShapesWithoutData) {
  const auto meta = torch::dtype(torch::kFloat).device(torch::kMeta).requires_grad(true);
  const auto x = torch::empty({2, 3, 260}, meta.dtype(torch::kBFloat16));
  const auto weight = torch::empty({12, 260}, meta);
  const auto bias = torch::empty({12}, meta);
  const auto norm_weight = torch::empty({260}, meta);
  const auto y = torch_layer::ops::bit_linear(x, weight, bias, norm_weight, true, 1e-6, true);
  EXPECT_TRUE(y.is_meta());
  EXPECT_EQ(y.sizes(), torch::IntArrayRef({2, 3, 12}));
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  y.backward(torch::empty_like(y));
  EXPECT_EQ(x.grad().sizes(), x.sizes());
  EXPECT_EQ(weight.grad().sizes(), weight.sizes());
  EXPECT_EQ(bias.grad().sizes(), bias.sizes());
  EXPECT_EQ(norm_weight.grad().sizes(), norm_weight.sizes());
}

TEST(ForwardNorm, RMSNormIsTheFormula) {
  torch::manual_seed(8);
  nn::RMSNorm norm(nn::RMSNormOptions(777).eps(1e-5));
  {
    const torch::NoGradGuard no_grad;
    norm->weight.uniform_(0.5, 1.5);
  }
  const auto x = torch::randn({4, 3, 777});
  const auto wide = x.to(torch::kDouble);
  const auto want = wide / (wide.square().mean(-1, true) + 1e-5).sqrt() * norm->weight.to(torch::kDouble);
  // Eleven roundings at most lie between x and y: the sum's tree is 12 deep, and a square root halves its
  // error.
  const auto error = (norm(x).to(torch::kDouble) - want).abs() / want.abs();
  EXPECT_LT(error.max().item<double>(), 11 * std::ldexp(1.0, -24));
  EXPECT_EQ(norm(x.to(torch::kHalf)).scalar_type(), torch::kHalf);
}

}  // namespace
}  // namespace trit::test

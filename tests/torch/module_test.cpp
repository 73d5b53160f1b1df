// SPDX-License-Identifier: MIT
//
// BitLinear and RMSNorm as modules: printing, cloning, archives in both directions.
#include <sstream>

#include "torch/reference.h"

namespace trit::test {
namespace {

using torch::Tensor;

// One archive through memory.
template <typename From, typename To>
void transfer(const From& from, To& to) {
  std::stringstream bytes;
  torch::save(from, bytes);
  torch::load(to, bytes);
}

std::string printed(const torch::nn::Module& module) {
  std::ostringstream stream;
  stream << module;
  return stream.str();
}

TEST(Module, Prints) {
  const nn::BitLinear plain(nn::BitLinearOptions(8, 4).bias(false).norm(Norm::none));
  EXPECT_EQ(
      printed(*plain),
      "trit::nn::BitLinear(in_features=8, out_features=4, bias=false, norm=none, eps=1e-06, scale=tensor)");
  const nn::BitLinear warm(nn::BitLinearOptions(8, 4).scale(ScaleGranularity::row).lambda(0.25));
  EXPECT_EQ(printed(*warm),
            "trit::nn::BitLinear(in_features=8, out_features=4, bias=true, norm=rms, eps=1e-06, scale=row, "
            "lambda=0.25)(\n  (norm): trit::nn::RMSNorm(features=8, eps=1e-06)\n)");
}

TEST(Module, StartsLikeLinear) {
  torch::manual_seed(31);
  const torch::nn::Linear linear(40, 30);
  torch::manual_seed(31);
  const nn::BitLinear fc(40, 30);
  EXPECT_TRUE(torch::equal(fc->weight, linear->weight));
  EXPECT_TRUE(torch::equal(fc->bias, linear->bias));
  EXPECT_TRUE(fc->norm->weight.eq(1).all().item<bool>());
  std::vector<std::string> names;
  for (const auto& parameter : fc->named_parameters()) {
    names.push_back(parameter.key());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"weight", "bias", "norm.weight"}));
}

TEST(Module, ClonesDeeply) {
  torch::nn::Sequential net(layer(12, 6, true, Norm::rms), layer(6, 3, false, Norm::none));
  const auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net->clone());
  const auto x = torch::randn({2, 12});
  const auto before = net->forward(x).detach();
  EXPECT_TRUE(torch::equal(copy->forward(x).detach(), before));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : copy->parameters()) {
    parameter.neg_();
  }
  EXPECT_TRUE(torch::equal(net->forward(x), before));
  EXPECT_FALSE(torch::equal(copy->forward(x), before));
}

TEST(Archive, ReadsItsOwn) {
  torch::manual_seed(32);
  auto from = layer(12, 6, true, Norm::rms);
  auto to = layer(12, 6, true, Norm::rms);
  transfer(from, to);
  const auto x = torch::randn({2, 12});
  EXPECT_TRUE(torch::equal(from(x), to(x)));
  EXPECT_TRUE(torch::equal(from->norm->weight, to->norm->weight));
}

TEST(Archive, ReadsALinears) {
  torch::manual_seed(33);
  for (const bool bias : {true, false}) {
    const torch::nn::Linear linear(torch::nn::LinearOptions(12, 6).bias(bias));
    nn::BitLinear fc(nn::BitLinearOptions(12, 6).bias(bias));
    transfer(linear, fc);
    EXPECT_TRUE(torch::equal(fc->weight, linear->weight));
    EXPECT_TRUE(!bias || torch::equal(fc->bias, linear->bias));
    EXPECT_TRUE(fc->norm->weight.eq(1).all().item<bool>());
  }
  torch::nn::Sequential net(torch::nn::Linear(12, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  torch::nn::Sequential ternary(nn::BitLinear(12, 6), torch::nn::ReLU(), nn::BitLinear(6, 3));
  transfer(net, ternary);
  EXPECT_TRUE(
      torch::equal(ternary->at<nn::BitLinearImpl>(2).weight, net->at<torch::nn::LinearImpl>(2).weight));
}

TEST(Archive, IsReadByALinear) {
  torch::manual_seed(34);
  for (const bool bias : {true, false}) {
    const auto fc = layer(12, 6, bias, Norm::rms);
    torch::nn::Linear linear(torch::nn::LinearOptions(12, 6).bias(bias));
    transfer(fc, linear);
    EXPECT_TRUE(torch::equal(fc->weight, linear->weight));
    EXPECT_TRUE(!bias || torch::equal(fc->bias, linear->bias));
  }
}

TEST(Archive, KeepsTheLayersDtypeAndRefusesWhatDoesNotFit) {
  auto fc = layer(12, 6, true, Norm::rms);
  auto half = layer(12, 6, true, Norm::rms);
  half->to(torch::kHalf);
  transfer(half, fc);
  EXPECT_EQ(fc->weight.scalar_type(), torch::kFloat);
  EXPECT_TRUE(torch::equal(fc->weight, half->weight.to(torch::kFloat)));

  auto wider = layer(13, 6, true, Norm::rms);
  EXPECT_THROW(transfer(fc, wider), c10::Error);
  auto no_bias = layer(12, 6, false, Norm::rms);
  EXPECT_THROW(transfer(fc, no_bias), c10::Error);
  EXPECT_THROW(transfer(no_bias, fc), c10::Error);
  auto no_norm = layer(12, 6, true, Norm::none);
  EXPECT_THROW(transfer(fc, no_norm), c10::Error);
}

}  // namespace
}  // namespace trit::test

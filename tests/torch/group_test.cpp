// SPDX-License-Identifier: MIT
//
// Layers with group scales: the bits of the definition, extreme weights, state dicts, convert, the packed file,
// and what they do not work with. Gradients are in gradient_test.cpp.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <sstream>

#include "run_seed.h"
#include "torch/ops.h"
#include "torch/reference.h"
#include "trit/error.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::test {
namespace {

using torch::Tensor;

nn::BitLinear group_layer(std::int64_t in_features, std::int64_t out_features, std::int64_t group,
                          bool bias = false, Norm norm = Norm::rms) {
  return layer(in_features, out_features, bias, norm, ScaleGranularity::group, group);
}

Tensor reference(nn::BitLinear& fc, const Tensor& x) {
  return bit_linear_rows(x, fc->weight, fc->bias.defined() ? std::optional(fc->bias) : std::nullopt,
                         fc->norm ? std::optional(fc->norm->weight) : std::nullopt, fc->options.norm(),
                         static_cast<float>(fc->options.eps()), fc->options.scale(), fc->options.group());
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(Groups, HaveTheBitsOfTheDefinition) {
  const std::uint64_t seed = run_seed();
  torch::manual_seed(seed);
  const auto draw = [](std::int64_t low, std::int64_t high) {
    return torch::randint(low, high + 1, {1}).item<std::int64_t>();
  };
  for (int i = 0; i < 60; ++i) {
    const std::int64_t group = 32 * draw(1, 5);
    const std::int64_t inputs = draw(1, 700);
    const std::int64_t tokens = draw(0, 40);
    auto fc =
        group_layer(inputs, draw(1, 140), group, draw(0, 1) == 1, draw(0, 1) == 1 ? Norm::rms : Norm::none);
    {
      // Groups of scales far apart, all zero (beta is 1e-5 then), one value alone.
      const torch::NoGradGuard no_grad;
      for (std::int64_t first = 0; first < inputs; first += group) {
        auto part = fc->weight.narrow(1, first, std::min(group, inputs - first));
        const std::int64_t kind = draw(0, 5);
        kind == 0   ? part.zero_()
        : kind == 1 ? part.fill_(1e-4F)
                    : part.mul_(static_cast<float>(std::pow(10.0, draw(-7, 7))));
      }
    }
    const auto dtype =
        std::array{torch::kFloat, torch::kHalf, torch::kBFloat16}[static_cast<std::size_t>(i % 3)];
    const auto x = (torch::randn({tokens, inputs}) * 3).to(dtype);
    EXPECT_TRUE(same_bits(fc(x).detach(), reference(fc, x)))
        << "seed " << seed << ", case " << i << ": " << fc->weight.sizes() << ", groups of " << group << ", "
        << tokens << " tokens";
  }
}

TEST(Groups, ZeroWeightsHaveFiniteGradients) {
  auto fc = group_layer(200, 7, 64);
  fc->weight.data().narrow(1, 64, 64).zero_();
  auto x = torch::randn({5, 200}, torch::requires_grad());
  fc(x).sum().backward();
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>() && fc->weight.grad().isfinite().all().item<bool>());
  EXPECT_GT(fc->weight.grad().narrow(1, 64, 64).abs().max().item<float>(), 0);  // they can leave zero
}

TEST(Groups, ANaNInOneGroupReachesTheOutput) {
  auto fc = group_layer(200, 7, 64);
  fc->weight.data()[3][70] = std::numeric_limits<float>::quiet_NaN();
  const auto y = fc(torch::randn({5, 200})).detach();
  EXPECT_TRUE(y.select(1, 3).isnan().all().item<bool>());
  EXPECT_EQ(y.isnan().sum().item<std::int64_t>(), 5);
}

TEST(Groups, BothOverloadsAgree) {
  torch::manual_seed(41);
  auto fc = group_layer(130, 9, 32, true);
  std::vector<Tensor> gradients;
  const auto grad = torch::randn({4, 9});
  for (const bool prepared : {true, false}) {
    auto x = torch::ones({4, 130}).mul_(0.3).requires_grad_();
    fc->zero_grad();
    const auto y = prepared ? fc(x)
                            : torch_layer::ops::bit_linear(x, fc->weight, fc->bias, fc->norm->weight, true,
                                                           1e-6, false, {}, 32);
    y.backward(grad);
    for (const auto& tensor : {y.detach(), x.grad(), fc->weight.grad().clone(), fc->bias.grad().clone()}) {
      gradients.push_back(tensor);
    }
  }
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(same_bits(gradients[i], gradients[i + 4])) << i;
  }
}

TEST(Groups, TheGroupIsPartOfTheCachesKey) {
  torch::manual_seed(42);
  auto fc = group_layer(256, 4, 64);
  const auto x = torch::randn({3, 256});
  for (const std::int64_t group : {64, 96, 128, 64}) {
    fc->options.group(group);
    EXPECT_TRUE(same_bits(fc(x).detach(), reference(fc, x))) << group;
  }
}

TEST(Groups, AsAModule) {
  torch::manual_seed(43);
  auto fc = group_layer(150, 6, 64);
  std::ostringstream text;
  text << *fc;
  EXPECT_EQ(text.str().substr(0, text.str().find('\n')),
            "trit::nn::BitLinear(in_features=150, out_features=6, bias=false, norm=rms, eps=1e-06, "
            "scale=group:64)(");
  const auto x = torch::randn({3, 150});
  const auto want = fc(x).detach();
  const auto copy = std::dynamic_pointer_cast<nn::BitLinearImpl>(fc->clone());
  EXPECT_TRUE(same_bits(copy->forward(x).detach(), want));
  std::stringstream archive;
  torch::save(fc, archive);
  auto other = group_layer(150, 6, 64);
  torch::load(other, archive);
  EXPECT_TRUE(same_bits(other(x).detach(), want));
  // A warm-up ends at the ternary layer.
  fc->options.lambda(1.0 - 1e-7);
  EXPECT_TRUE(torch::allclose(fc(x).detach(), want, 1e-4, 1e-5));
}

TEST(Groups, Convert) {
  torch::manual_seed(44);
  torch::nn::Sequential net(torch::nn::Linear(100, 30), torch::nn::ReLU(), torch::nn::Linear(30, 5));
  nn::convert(*net, {}, {.scale = ScaleGranularity::group, .group = 32});
  auto fc = nn::BitLinear(std::dynamic_pointer_cast<nn::BitLinearImpl>(net->ptr(0)));
  ASSERT_TRUE(fc.ptr() != nullptr);
  EXPECT_EQ(fc->options.group(), 32);
  const auto x = torch::randn({4, 100});
  EXPECT_TRUE(same_bits(fc(x).detach(), reference(fc, x)));
}

TEST(Groups, WhatTheyDoNotWorkWith) {
  const auto options = [] { return nn::BitLinearOptions(64, 8).scale(ScaleGranularity::group, 32); };
  for (const std::int64_t group : {0, -32, 16, 33}) {
    EXPECT_NE(error_of([&] { nn::BitLinear(options().group(group)); }).find("a multiple of 32"),
              std::string::npos);
  }
  EXPECT_NE(error_of([&] {
              nn::BitLinear(options().scale(ScaleGranularity::row));
            }).find("scale is row and group 32"),
            std::string::npos);
  for (const auto backward : {nn::Backward::int8_input, nn::Backward::int8_all}) {
    const std::string error = error_of([&] { nn::BitLinear(options().backward(backward)); });
    EXPECT_NE(error.find("groups of 32 inputs, wanted 'exact'"), std::string::npos) << error;
  }
  nn::BitLinear fc(options());
  fc->options.backward(nn::Backward::int8_all);
  EXPECT_NE(error_of([&] { fc(torch::randn({2, 64})); }).find("wanted 'exact'"), std::string::npos);
  const auto beta = torch_layer::ops::absmean(fc->weight.detach(), false, 32);
  EXPECT_NE(error_of([&] {
              torch_layer::ops::ternarize_pack(fc->weight.detach(), beta, 64);
            }).find("[8, 1] for groups of 64"),
            std::string::npos);
  EXPECT_NE(error_of([&] { torch_layer::ops::ternarize_pack(fc->weight.detach(), beta); }).find("[1] or [8]"),
            std::string::npos);
  EXPECT_NE(error_of([&] { torch_layer::ops::absmean(fc->weight.detach(), false, 40); }).find("groups of 40"),
            std::string::npos);
}

// 150 -> 70 -> 5, tails in the last groups.
struct Perceptron : torch::nn::Module {
  nn::BitLinear fc1 = register_module("fc1", group_layer(150, 70, 64, true));
  nn::BitLinear fc2 = register_module("fc2", group_layer(70, 5, 64, false, Norm::none));
  Tensor forward(const Tensor& x) { return fc2(torch::relu(fc1(x))); }
};
constexpr const char* kGraph = R"({"input": {"shape": [150]}, "nodes": [{"op": "input"},
    {"op": "bit_linear", "name": "fc1", "inputs": [0], "norm": "rms"}, {"op": "relu", "inputs": [1]},
    {"op": "bit_linear", "name": "fc2", "inputs": [2], "norm": "none"}]})";

TEST(Groups, APackedFileRunsToTheSameBits) {
  torch::manual_seed(45);
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) /
                                     ("trit-groups-" + std::to_string(getpid()) + ".safetensors");
  Perceptron net;
  torch::optim::SGD optimizer(net.parameters(), 0.1);
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    net.forward(torch::randn({16, 150})).square().sum().backward();
    optimizer.step();
  }
  nn::save_packed(net, path, kGraph);
  const auto file = io::SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata().at("trit.group"), "64");
  EXPECT_EQ(file.at("fc1.weight_scale").shape, (std::vector<std::int64_t>{70, 3}));
  const Tensor x = torch::randn({9, 150});
  const std::vector<float> y = Model::load(path).run({x.const_data_ptr<float>(), 9 * 150}, 9);
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(same_bits(torch::tensor(y).reshape({9, 5}), net.forward(x)));

  // One size of groups in a file, beside layers without any; and scales of a token, as the module has.
  const auto error = [&](const std::string& graph) {
    return error_of([&] { nn::save_packed(net, path, graph); });
  };
  const std::string per_group = std::string(kGraph).replace(std::string(kGraph).find("\"norm\": \"none\""), 0,
                                                            "\"token_scale\": \"group\", ");
  EXPECT_NE(error(per_group).find("\"token_scale\" is \"group\""), std::string::npos) << error(per_group);
  net.fc2->options.group(32);
  EXPECT_NE(error(kGraph).find("wanted 64 as \"fc1\" has"), std::string::npos) << error(kGraph);
  net.fc2->options.scale(ScaleGranularity::row, 0);
  nn::save_packed(net, path, kGraph);
  const std::vector<float> mixed = Model::load(path).run({x.const_data_ptr<float>(), 9 * 150}, 9);
  EXPECT_TRUE(same_bits(torch::tensor(mixed).reshape({9, 5}), net.forward(x)));
  std::filesystem::remove(path);
}

TEST(Groups, PackGivesTheStoredForm) {
  torch::manual_seed(46);
  auto fc = group_layer(150, 70, 64);
  const auto tensors = nn::pack(*fc);
  const auto want = trit::pack(values(fc->weight), 70, 150, ScaleGranularity::group, 64);
  const auto& codes = tensors.at("weight");
  const auto& scale = tensors.at("weight_scale");
  EXPECT_EQ(scale.sizes(), torch::IntArrayRef({70, 3}));
  EXPECT_TRUE(std::equal(want.codes.begin(), want.codes.end(), codes.const_data_ptr<std::uint8_t>()));
  EXPECT_TRUE(std::equal(want.scale.begin(), want.scale.end(), scale.const_data_ptr<float>()));
  // And a layer multiplies with it as with its own weight.
  const auto x = torch::randn({3, 150});
  const auto y = fc(x).detach();
  fc->weight.data().zero_();
  fc->use_packed(codes, scale);
  EXPECT_TRUE(same_bits(fc(x).detach(), y));
}

}  // namespace
}  // namespace trit::test

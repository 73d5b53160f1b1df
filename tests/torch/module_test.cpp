// SPDX-License-Identifier: MIT
//
// BitLinear and RMSNorm as modules: printing, cloning, archives in both directions, convert and pack.
#include <sstream>

#include "torch/reference.h"
#include "trit/error.h"

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

// A user's module: one Linear in a typed member, two in a Sequential of a submodule, one registered and not
// kept.
struct Inner : torch::nn::Module {
  Inner() {
    body = register_module(
        "body", torch::nn::Sequential(torch::nn::Linear(8, 8), torch::nn::ReLU(), torch::nn::Linear(8, 4)));
  }
  torch::nn::Sequential body{nullptr};
};
struct Net : torch::nn::Module {
  Net() {
    typed = register_module("typed", torch::nn::Linear(8, 8));
    inner = register_module("inner", std::make_shared<Inner>());
    register_module("found_by_name", torch::nn::Linear(4, 2));
  }
  torch::nn::Linear typed{nullptr};
  std::shared_ptr<Inner> inner;
};

const nn::Conversion& entry(const std::vector<nn::Conversion>& report, const std::string& name) {
  for (const auto& conversion : report) {
    if (conversion.name == name) {
      return conversion;
    }
  }
  throw std::out_of_range(name);
}

TEST(Convert, ReplacesWhatItCanAndReportsTheRest) {
  torch::manual_seed(35);
  const auto net = std::make_shared<Net>();
  auto& body = net->inner->body;
  const auto parameter = body->at<torch::nn::LinearImpl>(0).weight;
  net->eval();
  const auto report = nn::convert(*net);
  ASSERT_EQ(report.size(), 4U);
  EXPECT_FALSE(entry(report, "typed").converted);
  EXPECT_NE(entry(report, "typed").reason.find("declare"), std::string::npos);
  for (const char* name : {"inner.body.0", "inner.body.2", "found_by_name"}) {
    EXPECT_TRUE(entry(report, name).converted) << name;
    EXPECT_EQ(entry(report, name).reason, "");
  }
  auto& fc = body->at<nn::BitLinearImpl>(0);
  EXPECT_TRUE(fc.weight.is_same(parameter));  // the same tensor: an optimizer that holds it goes on
  EXPECT_TRUE(net->named_parameters()["inner.body.0.weight"].is_same(parameter));
  EXPECT_FALSE(fc.is_training());
  EXPECT_NE(net->named_children()["found_by_name"]->as<nn::BitLinear>(), nullptr);
  // The Sequential's forward and its list of children use the new layers.
  const auto x = torch::randn({3, 8});
  auto& last = body->at<nn::BitLinearImpl>(2);
  EXPECT_TRUE(torch::equal(body->forward(x), last.forward(torch::relu(fc.forward(x)))));
  EXPECT_EQ(body->children()[2].get(), &last);
  EXPECT_EQ(nn::convert(*net).size(), 1U);  // only the typed one is left
}

TEST(Convert, ContainersFilterAndOptions) {
  torch::nn::ModuleList list(torch::nn::Linear(8, 8), torch::nn::Linear(8, 8));
  const auto shared = std::make_shared<torch::nn::LinearImpl>(8, 8);
  torch::nn::ModuleDict dictionary;
  dictionary->update(std::vector<std::pair<std::string, std::shared_ptr<torch::nn::Module>>>{
      {"list", list.ptr()}, {"one", shared}, {"two", shared}});
  const auto report = nn::convert(
      *dictionary, [](const std::string& name, torch::nn::LinearImpl&) { return name != "list.1"; },
      {.norm = Norm::none, .eps = 1e-5, .scale = ScaleGranularity::row});
  EXPECT_TRUE(entry(report, "list.0").converted);
  EXPECT_EQ(entry(report, "list.1").reason, "refused by the filter");
  ASSERT_NE(list[0]->as<nn::BitLinear>(), nullptr);
  EXPECT_NE(list[1]->as<torch::nn::Linear>(), nullptr);
  EXPECT_TRUE(list->children()[0] == list[0]);
  EXPECT_TRUE(list[0]->as<nn::BitLinear>()->norm.is_empty());
  EXPECT_EQ(list[0]->as<nn::BitLinear>()->options.scale(), ScaleGranularity::row);
  // A layer in two places stays one layer.
  ASSERT_NE(dictionary["one"]->as<nn::BitLinear>(), nullptr);
  EXPECT_EQ(dictionary["one"], dictionary["two"]);
  EXPECT_TRUE(dictionary["one"]->as<nn::BitLinear>()->weight.is_same(shared->weight));
}

TEST(Convert, RefusesWhatWouldNotRun) {
  torch::nn::Linear alone(4, 4);
  const auto report = nn::convert(*alone);
  ASSERT_EQ(report.size(), 1U);
  EXPECT_FALSE(report[0].converted);
  torch::nn::Sequential wide(torch::nn::Linear(4, 4));
  wide->to(torch::kDouble);
  EXPECT_NE(nn::convert(*wide)[0].reason.find("Double"), std::string::npos);
  torch::nn::Sequential half(torch::nn::Linear(4, 4));
  half->to(torch::kHalf);
  EXPECT_TRUE(nn::convert(*half)[0].converted);
  EXPECT_EQ(half->at<nn::BitLinearImpl>(0).norm->weight.scalar_type(), torch::kHalf);
  half->forward(torch::randn({2, 4}).to(torch::kHalf));
}

TEST(Pack, GivesTheStoredForm) {
  torch::manual_seed(36);
  torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3)), torch::nn::Flatten(),
                            layer(37, 6, true, Norm::rms),
                            layer(6, 5, false, Norm::none, ScaleGranularity::row));
  const auto tensors = nn::pack(*net);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    names.push_back(name);
    EXPECT_TRUE(tensor.is_contiguous() && tensor.is_cpu() && !tensor.requires_grad());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"0.bias", "0.weight", "2.bias", "2.norm.weight", "2.weight",
                                             "2.weight_scale", "3.weight", "3.weight_scale"}));
  for (const auto& [index, granularity] :
       {std::pair{2, ScaleGranularity::tensor}, std::pair{3, ScaleGranularity::row}}) {
    const auto& weight = net->at<nn::BitLinearImpl>(static_cast<std::size_t>(index)).weight;
    const auto want = trit::pack(values(weight), weight.size(0), weight.size(1), granularity);
    const auto& codes = tensors.at(std::to_string(index) + ".weight");
    const auto& scale = tensors.at(std::to_string(index) + ".weight_scale");
    EXPECT_EQ(codes.sizes(), torch::IntArrayRef({weight.size(0), packed_row_bytes(weight.size(1))}));
    EXPECT_TRUE(std::equal(want.codes.begin(), want.codes.end(), codes.const_data_ptr<std::uint8_t>()));
    EXPECT_EQ(scale.numel(), static_cast<std::int64_t>(want.scale.size()));
    EXPECT_TRUE(std::equal(want.scale.begin(), want.scale.end(), scale.const_data_ptr<float>()));
  }
  // Copies: training on does not change them.
  const auto before = tensors.at("0.weight").clone();
  net->parameters()[0].data().zero_();
  EXPECT_TRUE(torch::equal(tensors.at("0.weight"), before));
}

TEST(Pack, NamesWhatIsNotFinite) {
  torch::nn::Sequential net(layer(37, 6, true, Norm::rms));
  net->at<nn::BitLinearImpl>(0).weight.data()[4][31] = std::numeric_limits<float>::quiet_NaN();
  try {
    nn::pack(*net);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("0.weight is nan at row 4, column 31"), std::string::npos)
        << error.what();
  }
  net->at<nn::BitLinearImpl>(0).weight.data()[4][31] = 1.0F;
  net->at<nn::BitLinearImpl>(0).norm->weight.data()[3] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(nn::pack(*net), Error);
}

}  // namespace
}  // namespace trit::test

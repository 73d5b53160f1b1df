// SPDX-License-Identifier: MIT
//
// convert(): which Linear layers of a module tree become BitLinear, and what is said of the others.
#include "torch/reference.h"
#include "torch/warnings.h"

namespace trit::test {
namespace {

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

TEST(Convert, WarnsWhereTheResultMayNotBeWhatWasMeant) {
  {
    Warnings warnings;
    const auto net = std::make_shared<Net>();
    nn::convert(*net);
    EXPECT_TRUE(warnings.has("left in float: 'typed' (") && warnings.has("declare that member"))
        << warnings.text;
    EXPECT_FALSE(warnings.has("nothing was replaced")) << warnings.text;
  }
  struct Typed : torch::nn::Module {
    torch::nn::Linear fc1 = register_module("fc1", torch::nn::Linear(8, 8));
  };
  struct Unregistered : torch::nn::Module {
    torch::nn::Linear fc1{8, 8};
  };
  {
    Warnings warnings;
    Typed net;
    EXPECT_FALSE(nn::convert(net).at(0).converted);
    EXPECT_TRUE(warnings.has("nothing was replaced: left in float: 'fc1'")) << warnings.text;
    nn::pack(net);
    EXPECT_TRUE(warnings.has("has no BitLinear")) << warnings.text;
  }
  {
    Warnings warnings;
    Unregistered net;
    EXPECT_TRUE(nn::convert(net).empty());
    EXPECT_TRUE(warnings.has("no torch::nn::Linear among its registered modules")) << warnings.text;
  }
  {
    Warnings warnings;
    torch::nn::Sequential net(torch::nn::Linear(4, 4), torch::nn::Linear(4, 4));
    nn::convert(*net, [](const std::string&, torch::nn::LinearImpl&) { return false; });
    EXPECT_TRUE(warnings.has("the filter refused all 2")) << warnings.text;
  }
  {
    Warnings warnings;  // what was asked for, and again
    torch::nn::Sequential net(torch::nn::Linear(4, 4), torch::nn::ReLU(), torch::nn::Linear(4, 4));
    nn::convert(*net, [](const std::string& name, torch::nn::LinearImpl&) { return name == "0"; });
    nn::convert(*net);
    nn::convert(*net);
    nn::pack(*net);
    EXPECT_EQ(warnings.text, "");
  }
}

TEST(Convert, TellsOfOldLayersThatAreStillHeld) {
  Warnings warnings;
  torch::nn::Linear fc(8, 8);  // as a class member beside its Sequential
  torch::nn::Sequential body(fc, torch::nn::ReLU(), torch::nn::Linear(8, 8));
  torch::nn::ModuleList list(fc, torch::nn::Linear(8, 8));
  torch::nn::ModuleDict root;
  root->update(std::vector<std::pair<std::string, std::shared_ptr<torch::nn::Module>>>{{"body", body.ptr()},
                                                                                       {"list", list.ptr()}});
  const auto report = nn::convert(*root);
  EXPECT_EQ(entry(report, "body.0").held_elsewhere, 1);
  EXPECT_EQ(entry(report, "list.0").held_elsewhere, 1);
  EXPECT_EQ(entry(report, "body.2").held_elsewhere, 0);
  EXPECT_EQ(entry(report, "list.1").held_elsewhere, 0);
  EXPECT_TRUE(warnings.has("still lead to the old") && warnings.has("'body.0' (1x)")) << warnings.text;
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

}  // namespace
}  // namespace trit::test

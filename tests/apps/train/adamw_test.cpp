// SPDX-License-Identifier: MIT
#include "train_cifar10/adamw.h"

#include <gtest/gtest.h>

namespace trit::train {
namespace {

using Parameters = torch::OrderedDict<std::string, torch::Tensor>;

Parameters draw_parameters() {
  torch::manual_seed(11);
  Parameters parameters;
  parameters.insert("conv.weight", torch::randn({8, 3, 3, 3}).requires_grad_());
  parameters.insert("conv.bias", torch::randn({8}).requires_grad_());
  parameters.insert("fc.weight", torch::randn({33, 65}).requires_grad_());
  parameters.insert("fc.norm.weight", torch::ones({65}).requires_grad_());
  return parameters;
}

/// torch::optim::AdamW with the same groups.
std::unique_ptr<torch::optim::AdamW> reference(Parameters& parameters, double lr, double decay) {
  const auto options = [&](double weight_decay) {
    return std::make_unique<torch::optim::AdamWOptions>(
        torch::optim::AdamWOptions(lr).weight_decay(weight_decay));
  };
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector{parameters["conv.weight"], parameters["fc.weight"]}, options(decay));
  groups.emplace_back(std::vector{parameters["conv.bias"], parameters["fc.norm.weight"]}, options(0.0));
  return std::make_unique<torch::optim::AdamW>(groups);
}

void set_gradients(Parameters& parameters, int step, bool channels_last) {
  torch::manual_seed(static_cast<std::uint64_t>(100 + step));
  for (auto& item : parameters) {
    torch::Tensor gradient = torch::randn(item.value().sizes());
    if (channels_last && gradient.dim() == 4) gradient = gradient.contiguous(at::MemoryFormat::ChannelsLast);
    item.value().mutable_grad() = gradient;
  }
}

// The fused kernel rounds in another order: 1e-6 relative is some ulp of the sums, a wrong decay or bias
// correction is above 1e-3.
TEST(AdamW, EqualsLibTorchs) {
  for (const bool channels_last : {false, true}) {
    Parameters ours = draw_parameters(), theirs = draw_parameters();
    AdamW optimizer(ours, AdamWOptions(1e-2).weight_decay(0.1));
    const auto other = reference(theirs, 1e-2, 0.1);
    for (int step = 0; step < 30; ++step) {
      set_gradients(ours, step, channels_last);
      set_gradients(theirs, step, false);
      if (step == 20) {
        optimizer.set_learning_rate(1e-3);
        for (auto& group : other->param_groups()) group.options().set_lr(1e-3);
      }
      optimizer.step();
      other->step();
      for (const auto& item : ours) {
        ASSERT_TRUE(torch::allclose(item.value(), theirs[item.key()], 1e-6, 1e-6))
            << item.key() << " step " << step;
      }
    }
  }
}

TEST(AdamW, SkipsParametersWithoutGradient) {
  Parameters parameters = draw_parameters();
  AdamW optimizer(parameters, AdamWOptions(1e-2));
  parameters["fc.weight"].mutable_grad() = torch::ones({33, 65});
  const torch::Tensor before = parameters["conv.weight"].detach().clone();
  optimizer.step();
  EXPECT_TRUE(torch::equal(parameters["conv.weight"], before));
  EXPECT_EQ(optimizer.named_state().at("conv.weight.step").item<float>(), 0.0F);
  EXPECT_EQ(optimizer.named_state().at("fc.weight.step").item<float>(), 1.0F);
}

// BitLinear packs its weights anew when this number has moved.
TEST(AdamW, ChangesTheVersionOfParameters) {
  Parameters parameters = draw_parameters();
  AdamW optimizer(parameters, AdamWOptions(1e-2));
  set_gradients(parameters, 0, false);
  const auto before = parameters["fc.weight"]._version();
  optimizer.step();
  EXPECT_GT(parameters["fc.weight"]._version(), before);
}

TEST(AdamW, ResumesFromItsState) {
  Parameters straight = draw_parameters(), resumed = draw_parameters();
  AdamW first(straight, AdamWOptions(1e-2));
  for (int step = 0; step < 3; ++step) {
    set_gradients(straight, step, false);
    first.step();
  }
  AdamW second(resumed, AdamWOptions(1e-2));
  {
    const torch::NoGradGuard no_gradients;
    for (auto& item : resumed) item.value().copy_(straight[item.key()]);
    for (auto& [name, tensor] : second.named_state())
      torch::Tensor(tensor).copy_(first.named_state().at(name));
  }
  for (int step = 3; step < 6; ++step) {
    set_gradients(straight, step, false);
    set_gradients(resumed, step, false);
    first.step();
    second.step();
  }
  for (const auto& item : straight)
    EXPECT_TRUE(torch::equal(item.value(), resumed[item.key()])) << item.key();
}

}  // namespace
}  // namespace trit::train

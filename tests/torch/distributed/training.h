// SPDX-License-Identifier: MIT
//
// What is trained: a small net, its batches and its optimizer, and the steps of a process that trains alone.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "trit/torch.h"

namespace trit::test {

inline constexpr std::int64_t kInputs = 32, kHidden = 46, kClasses = 10, kBatch = 24;

struct NetImpl : torch::nn::Module {
  torch::nn::Linear in = register_module("in", torch::nn::Linear(kInputs, kHidden));
  nn::BitLinear fc1 = register_module("fc1", nn::BitLinear(kHidden, 64));
  nn::BitLinear fc2 = register_module(
      "fc2", nn::BitLinear(nn::BitLinearOptions(64, kClasses).bias(false).scale(ScaleGranularity::row)));
  torch::Tensor seen = register_buffer("seen", torch::zeros({1}));

  torch::Tensor forward(const torch::Tensor& x) { return fc2(torch::relu(fc1(torch::relu(in(x))))); }
};
TORCH_MODULE(Net);

/// A layer that is registered and used twice.
struct TwiceImpl : torch::nn::Module {
  nn::BitLinear first = register_module("first", nn::BitLinear(kInputs, kInputs));
  nn::BitLinear second = register_module("second", first);

  torch::Tensor forward(const torch::Tensor& x) { return second(torch::relu(first(x))); }
};
TORCH_MODULE(Twice);

/// A layer that some processes use and others do not.
struct BranchImpl : torch::nn::Module {
  bool used = true;
  torch::nn::Linear always = register_module("always", torch::nn::Linear(kInputs, kClasses));
  nn::BitLinear sometimes = register_module("sometimes", nn::BitLinear(kInputs, kClasses));

  torch::Tensor forward(const torch::Tensor& x) { return used ? always(x) + sometimes(x) : always(x); }
};
TORCH_MODULE(Branch);

inline Net seeded_net(std::uint64_t seed = 1) {
  torch::manual_seed(seed);
  return {};
}

/// The batch of a step, the same in every process.
inline std::pair<torch::Tensor, torch::Tensor> batch_of(std::int64_t step) {
  torch::manual_seed(static_cast<std::uint64_t>(100 + step));
  return {torch::randn({kBatch, kInputs}), torch::randint(kClasses, {kBatch})};
}

/// Backward of part `index` of `count` of a batch.
template <typename Model>
double backward(Model& net, std::int64_t step, std::int64_t index, std::int64_t count) {
  const auto [x, labels] = batch_of(step);
  const std::int64_t images = kBatch / count;
  const torch::Tensor loss = torch::nn::functional::cross_entropy(net(x.narrow(0, index * images, images)),
                                                                  labels.narrow(0, index * images, images));
  loss.backward();
  return loss.template item<double>();
}

inline std::unique_ptr<torch::optim::Optimizer> adamw(const std::vector<torch::Tensor>& parameters) {
  return std::make_unique<torch::optim::AdamW>(parameters,
                                               torch::optim::AdamWOptions(1e-2).weight_decay(0.1));
}

/// Steps [first, last) of one process that takes a batch in `count` parts.
template <typename Model>
void train_alone(Model& net, torch::optim::Optimizer& optimizer, std::int64_t first, std::int64_t last,
                 std::int64_t count) {
  for (std::int64_t step = first; step < last; ++step) {
    optimizer.zero_grad();
    for (std::int64_t part = 0; part < count; ++part) {
      backward(net, step, part, count);
    }
    const torch::NoGradGuard no_grad;
    for (const torch::Tensor& parameter : optimizer.param_groups()[0].params()) {
      parameter.grad().div_(count);
    }
    optimizer.step();
  }
}

}  // namespace trit::test

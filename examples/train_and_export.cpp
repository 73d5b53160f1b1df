// SPDX-License-Identifier: MIT
//
// Trains two ternary layers with LibTorch on points of a spiral, writes them as a packed model, and runs that
// file without torch: the predictions are the same.
//
//   train_and_export [OUT.safetensors]
#include <trit/model.h>
#include <trit/torch.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

constexpr std::int64_t kClasses = 3, kFeatures = 16, kHidden = 64;

struct NetImpl : torch::nn::Module {
  torch::nn::Linear in = register_module("in", torch::nn::Linear(2, kFeatures));
  trit::nn::BitLinear fc1 = register_module("fc1", trit::nn::BitLinear(kFeatures, kHidden));
  trit::nn::BitLinear fc2 = register_module("fc2", trit::nn::BitLinear(kHidden, kClasses));

  torch::Tensor forward(const torch::Tensor& x) { return fc2(torch::relu(fc1(torch::relu(in(x))))); }
};
TORCH_MODULE(Net);

// What the file computes. A node's `name` is the name under which the module has registered its layer.
constexpr const char* kGraph = R"({
  "input": {"shape": [2]},
  "nodes": [{"op": "input"},
            {"op": "linear", "name": "in", "inputs": [0]},
            {"op": "relu", "inputs": [1]},
            {"op": "bit_linear", "name": "fc1", "inputs": [2], "norm": "rms"},
            {"op": "relu", "inputs": [3]},
            {"op": "bit_linear", "name": "fc2", "inputs": [4], "norm": "rms"}]})";

/// Points [count, 2] on kClasses arms of a spiral, and the arm of each.
std::pair<torch::Tensor, torch::Tensor> spiral(std::int64_t count) {
  const torch::Tensor arm = torch::randint(kClasses, {count});
  const torch::Tensor radius = torch::rand({count});
  const torch::Tensor angle = 2 * M_PI / kClasses * arm + 3 * radius + 0.1 * torch::randn({count});
  return {torch::stack({radius * angle.cos(), radius * angle.sin()}, 1), arm};
}

}  // namespace

int main(int argc, char** argv) {
  const char* const path = argc > 1 ? argv[1] : "spiral.safetensors";
  torch::manual_seed(0);
  const auto [x, labels] = spiral(2000);
  Net net;
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(1e-2));
  for (int step = 0; step < 300; ++step) {
    optimizer.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(net(x), labels);
    loss.backward();
    optimizer.step();
    if (step % 100 == 99) std::printf("step %d, loss %.3f\n", step + 1, loss.item<double>());
  }
  trit::nn::save_packed(*net, path, kGraph);

  const torch::NoGradGuard no_grad;
  const auto [test_x, test_labels] = spiral(500);
  const torch::Tensor trained = net(test_x).argmax(1);
  const double accuracy = trained.eq(test_labels).to(torch::kFloat64).mean().item<double>();

  const auto model = trit::Model::load(path);
  const std::vector<float> y =
      model.run({test_x.const_data_ptr<float>(), static_cast<std::size_t>(test_x.numel())}, 500);
  std::int64_t same = 0;
  for (std::int64_t i = 0; i < 500; ++i) {
    const auto row = y.begin() + i * kClasses;
    same += std::max_element(row, row + kClasses) - row == trained[i].item<std::int64_t>() ? 1 : 0;
  }
  std::printf("accuracy %.1f %%; %s predicts the same class for %lld of 500 points\n", 100 * accuracy, path,
              static_cast<long long>(same));
  return accuracy > 0.8 && same >= 499 ? 0 : 1;
}

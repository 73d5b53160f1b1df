// SPDX-License-Identifier: MIT
//
// A LibTorch program outside the project: one BitLinear, forward, backward, pack; a file that runs.
#include <trit/model.h>
#include <trit/torch.h>

#include <cstdio>

int main() {
  torch::manual_seed(0);
  trit::nn::BitLinear layer(trit::nn::BitLinearOptions(64, 8).bias(false));
  const torch::Tensor y = layer(torch::randn({3, 64}));
  y.square().sum().backward();
  const auto tensors = trit::nn::pack(*layer);
  const bool gradient =
      layer->weight.grad().defined() && layer->weight.grad().abs().sum().item<float>() > 0.0F;
  const bool packed =
      tensors.contains("weight") && tensors.at("weight").sizes() == torch::IntArrayRef({8, 16});
  torch::nn::Sequential net;
  net->push_back("fc", layer);
  trit::nn::save_packed(*net, "consumer.safetensors",
                        R"({"input": {"shape": [64]}, "nodes": [{"op": "input"},
                            {"op": "bit_linear", "name": "fc", "inputs": [0], "norm": "rms"}]})");
  const auto model = trit::Model::load("consumer.safetensors");
  std::printf("y %ld x %ld, gradient %s, packed %s\n", y.size(0), y.size(1), gradient ? "yes" : "missing",
              packed ? "2 bits a weight" : "wrong");
  return y.sizes() == torch::IntArrayRef({3, 8}) && gradient && packed && model.output_shape().front() == 8
             ? 0
             : 1;
}

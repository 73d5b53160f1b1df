// SPDX-License-Identifier: MIT
//
// The host's time of one eager call of a layer on a GPU: trit::nn::BitLinear beside torch::nn::Linear, in
// turn, at M tokens. A call returns when its kernels are in the stream; every kCalls of them the GPU is
// waited for, outside of the time, so that the stream's queue never fills up. Prints one JSON object a mode.
//
//   bench_torch_call [M] [N] [K] [bf16|fp32]
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "trit/torch.h"

namespace {

constexpr int kCalls = 100, kRounds = 60;

template <typename Layer>
double microseconds_per_call(Layer& layer, const torch::Tensor& x) {
  torch::cuda::synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) {
    layer(x);
  }
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
  torch::cuda::synchronize();
  return time.count() / kCalls;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (!torch::cuda::is_available()) {
    std::printf("skipped: LibTorch finds no GPU here\n");
    return 77;
  }
  const auto number = [&](int i, std::int64_t otherwise) {
    return argc > i ? std::stoll(argv[i]) : otherwise;
  };
  const std::int64_t tokens = number(1, 1), out_features = number(2, 4096), in_features = number(3, 4096);
  const auto type = argc > 4 && std::string(argv[4]) == "fp32" ? torch::kFloat : torch::kBFloat16;
  trit::nn::BitLinear ternary(trit::nn::BitLinearOptions(in_features, out_features).bias(false));
  torch::nn::Linear linear(torch::nn::LinearOptions(in_features, out_features).bias(false));
  ternary->to(torch::kCUDA);
  linear->to(torch::kCUDA, type);
  const auto x = torch::randn({tokens, in_features}, torch::dtype(type).device(torch::kCUDA));
  // With a gradient the layer packs its weight at every call, since optimisers may write to it without changing
  // its version counter. So the second line is the cost of packing, and the third adds the record for a backward.
  struct Mode {
    const char* name;
    bool gradients, packs;
  };
  for (const Mode mode : {Mode{"inference", false, false}, Mode{"inference, packing", false, true},
                          Mode{"gradients", true, true}}) {
    const torch::AutoGradMode grad_mode(mode.gradients);
    ternary->weight.mutable_grad() =
        mode.packs && !mode.gradients ? torch::zeros_like(ternary->weight) : torch::Tensor();
    std::vector<double> ours, theirs;
    for (int round = 0; round < kRounds; ++round) {
      theirs.push_back(microseconds_per_call(linear, x));
      ours.push_back(microseconds_per_call(ternary, x));
    }
    std::printf(
        "{\"mode\": \"%s\", \"M\": %lld, \"N\": %lld, \"K\": %lld, \"dtype\": \"%s\", \"gradients\": %s, "
        "\"bit_linear_us\": %.3f, \"linear_us\": %.3f, \"ratio\": %.3f}\n",
        mode.name, static_cast<long long>(tokens), static_cast<long long>(out_features),
        static_cast<long long>(in_features), c10::toString(type), mode.gradients ? "true" : "false",
        median(ours), median(theirs), median(ours) / median(theirs));
  }
  return 0;
}

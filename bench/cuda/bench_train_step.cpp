// SPDX-License-Identifier: MIT
//
// One training step of one layer from C++: trit::nn::BitLinear with each backward beside torch::nn::Linear in
// bfloat16 without a norm, forward and backward, in turn. bench_train_layer.py has the compiled peers.
//
//   bench_train_step --tokens 2048 --shapes 4096x4096
//
// One JSON object a shape on a line: microseconds of a step, and how far dX and dW are from the exact ones.
#include <c10/cuda/CUDAStream.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "bench/lib/event_timer.h"
#include "bench/lib/program.h"
#include "common/number_options.h"
#include "trit/torch.h"

namespace {

using torch::Tensor;
using trit::nn::Backward;

struct Candidate {
  const char* name;
  std::function<Tensor(const Tensor&)> forward;
  std::vector<Tensor> parameters;
  std::vector<double> times;
};

void step(const Candidate& candidate, Tensor& x, const Tensor& grad_y) {
  x.mutable_grad().reset();
  for (const Tensor& parameter : candidate.parameters) {
    parameter.mutable_grad().reset();
  }
  candidate.forward(x).backward(grad_y);
}

double microseconds(const Candidate& candidate, Tensor& x, const Tensor& grad_y, double settle) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  int calls = 0;
  while (std::chrono::duration<double, std::milli>(Clock::now() - start).count() < settle) {
    for (int i = 0; i < 4; ++i, ++calls) {
      step(candidate, x, grad_y);
    }
    torch::cuda::synchronize();
  }
  calls = std::clamp(calls / 2, 3, 50);
  const double time = trit::bench::EventTimer(c10::cuda::getCurrentCUDAStream().stream()).milliseconds([&] {
    for (int i = 0; i < calls; ++i) {
      step(candidate, x, grad_y);
    }
  });
  return 1e3 * time / calls;
}

double relative(const Tensor& found, const Tensor& wanted) {
  return ((found.to(torch::kFloat) - wanted.to(torch::kFloat)).norm() / wanted.to(torch::kFloat).norm())
      .item<double>();
}

void measure(std::int64_t outputs, std::int64_t inputs, std::int64_t tokens, double settle) {
  torch::manual_seed(0);
  const auto options = torch::device(torch::kCUDA).dtype(torch::kBFloat16);
  Tensor x = torch::randn({tokens, inputs}, options).requires_grad_();
  const Tensor grad_y = torch::randn({tokens, outputs}, options);
  trit::nn::BitLinear ternary(trit::nn::BitLinearOptions(inputs, outputs).bias(false));
  torch::nn::Linear linear(torch::nn::LinearOptions(inputs, outputs).bias(false));
  ternary->to(torch::kCUDA);
  linear->to(torch::kCUDA, torch::kBFloat16);
  std::vector<Candidate> candidates;
  const auto trit_layer = [&](const char* name, Backward kind, bool stochastic) {
    candidates.push_back({name,
                          [&ternary, kind, stochastic](const Tensor& input) {
                            ternary->options.backward(kind).stochastic_rounding(stochastic);
                            return ternary(input);
                          },
                          ternary->parameters(),
                          {}});
  };
  trit_layer("exact", Backward::exact, false);
  trit_layer("int8_input", Backward::int8_input, false);
  trit_layer("int8_all", Backward::int8_all, false);
  trit_layer("int8_all_stochastic", Backward::int8_all, true);
  candidates.push_back(
      {"linear_bf16", [&](const Tensor& input) { return linear(input); }, linear->parameters(), {}});

  std::printf("{\"tokens\": %lld, \"out_features\": %lld, \"in_features\": %lld",
              static_cast<long long>(tokens), static_cast<long long>(outputs),
              static_cast<long long>(inputs));
  Tensor exact_x;
  Tensor exact_weight;
  for (const Candidate& candidate : candidates) {
    if (std::string(candidate.name) == "linear_bf16") {
      continue;
    }
    step(candidate, x, grad_y);
    if (!exact_x.defined()) {
      exact_x = x.grad();
      exact_weight = ternary->weight.grad();
    } else {
      std::printf(", \"%s_error\": [%.5f, %.5f]", candidate.name, relative(x.grad(), exact_x),
                  relative(ternary->weight.grad(), exact_weight));
    }
  }
  for (int round = 0; round < 3; ++round) {
    for (Candidate& candidate : candidates) {
      candidate.times.push_back(microseconds(candidate, x, grad_y, settle));
    }
  }
  for (Candidate& candidate : candidates) {
    std::sort(candidate.times.begin(), candidate.times.end());
    std::printf(", \"%s\": %.1f", candidate.name, candidate.times[candidate.times.size() / 2]);
  }
  std::printf("}\n");
  std::fflush(stdout);
}

}  // namespace

int trit::bench::run(int argc, char** argv) {
  std::int64_t tokens = 16384;
  double settle = 120;
  std::vector<trit::bench::LinearShape> shapes{
      {2560, 2560}, {4096, 4096}, {14336, 4096}, {4096, 14336}, {8192, 8192}};
  trit::bench::CommandLine app{"Times a training step of one layer on a GPU from C++, with each backward.",
                               "bench_train_step --tokens 2048 --shapes 4096x4096"};
  app.add_option("--tokens", tokens, "rows of x")->type_name("N")->check(trit::apps::whole_number(1));
  app.add_settle(settle, "milliseconds of the same work before each timing");
  app.add_shapes(shapes);
  CLI11_PARSE(app, argc, argv);
  if (!torch::cuda::is_available()) {
    std::printf("skipped: LibTorch finds no GPU here\n");
    return 77;
  }
  for (const auto& [outputs, inputs] : shapes) {
    measure(outputs, inputs, tokens, settle);
  }
  return 0;
}

// SPDX-License-Identifier: MIT
//
// Runs trit::amp::GradScaler through the script on standard input and prints one line of JSON a step, for
// grad_scaler_test.py to compare with torch.amp.GradScaler. The script:
//   init_scale growth_factor backoff_factor growth_interval
//   then one step a line: kind gradient_0 gradient_1 ... (values before scaling; "inf" and "nan" are allowed)
// kind: plain (step alone), unscale (unscale_ before step), two (a second optimizer whose gradients are
// finite), set (update(gradient_0) instead of a step), reload (state_dict and load_state_dict into a new
// scaler).
#include <torch/torch.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "trit/torch.h"

namespace {

void print_values(const char* name, const torch::Tensor& tensor) {
  std::printf("\"%s\": [", name);
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    // 9 digits tell two floats apart; NaN and Inf as text, which JSON lacks.
    std::printf("%s\"%.9g\"", i == 0 ? "" : ", ", static_cast<double>(tensor[i].item<float>()));
  }
  std::printf("], ");
}

}  // namespace

int main() {
  double init_scale = 0;
  double growth_factor = 0;
  double backoff_factor = 0;
  std::int64_t growth_interval = 0;
  std::cin >> init_scale >> growth_factor >> backoff_factor >> growth_interval >> std::ws;
  const auto options = trit::amp::GradScalerOptions()
                           .init_scale(init_scale)
                           .growth_factor(growth_factor)
                           .backoff_factor(backoff_factor)
                           .growth_interval(growth_interval);
  auto scaler = std::make_unique<trit::amp::GradScaler>(torch::kCPU, options);
  auto parameter = torch::zeros({2}, torch::requires_grad());
  auto other = torch::zeros({2}, torch::requires_grad());
  torch::optim::SGD optimizer({parameter}, torch::optim::SGDOptions(0.125).momentum(0.5));
  torch::optim::SGD second({other}, 0.125);

  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string kind;
    std::string first;
    std::string last;
    words >> kind >> first >> last;
    const auto gradient = torch::tensor({std::stof(first), std::stof(last)});
    bool stepped = false;
    if (kind == "set") {
      scaler->update(static_cast<double>(std::stof(first)));
    } else {
      optimizer.zero_grad();
      scaler->scale((parameter * gradient).sum()).backward();
      if (kind == "unscale") {
        scaler->unscale_(optimizer);
      }
      stepped = scaler->step(optimizer);
      if (kind == "two") {
        second.zero_grad();
        scaler->scale((other * 3.0F).sum()).backward();
        scaler->step(second);
      }
      scaler->update();
    }
    if (kind == "reload") {
      const auto state = scaler->state_dict();
      scaler = std::make_unique<trit::amp::GradScaler>(torch::kCPU, options);
      scaler->load_state_dict(state);
    }
    std::printf("{");
    print_values("parameter", parameter.detach());
    print_values("other", other.detach());
    print_values("gradient", parameter.grad().defined() ? parameter.grad() : torch::zeros({2}));
    std::printf("\"stepped\": %s, ", stepped ? "true" : "false");
    for (const auto& [key, value] : scaler->state_dict()) {
      std::printf("\"%s\": %.17g, ", key.c_str(), value);
    }
    std::printf("\"kind\": \"%s\"}\n", kind.c_str());
  }
  return 0;
}

// SPDX-License-Identifier: MIT
#include "train_cifar10/adamw.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adamw.h>

namespace trit::train {

AdamW::AdamW(const torch::OrderedDict<std::string, torch::Tensor>& parameters, const AdamWOptions& options)
    : Optimizer(std::vector<torch::optim::OptimizerParamGroup>{}, std::make_unique<AdamWOptions>(options)),
      moments_(groups),
      convolution_factor_(options.convolution_factor()) {
  std::vector<std::vector<torch::Tensor>> members(groups);
  for (const auto& item : parameters) {
    const torch::Tensor& parameter = item.value();
    const Group group = parameter.dim() > 2 ? convolutions : parameter.dim() == 2 ? matrices : plain;
    members[group].push_back(parameter);
    moments_[group].push_back({item.key(), torch::zeros_like(parameter), torch::zeros_like(parameter),
                               torch::zeros({}, torch::dtype(torch::kFloat).device(parameter.device()))});
  }
  for (std::size_t group = 0; group < groups; ++group) {
    auto own = std::make_unique<AdamWOptions>(options);
    if (group == plain) own->weight_decay(0.0);
    add_param_group({members[group], std::move(own)});
  }
  set_learning_rate(options.lr());
}

torch::Tensor AdamW::step(LossClosure closure) {
  torch::Tensor loss;
  if (closure) {
    const at::AutoGradMode with_gradients(true);
    loss = closure();
  }
  const torch::NoGradGuard no_gradients;
  for (std::size_t group = 0; group < moments_.size(); ++group) {
    const auto& options = static_cast<const AdamWOptions&>(param_groups_[group].options());
    const auto [parameters, gradients, averages, squares, steps] = lists_of(group);
    for (const torch::Tensor& count : steps) count.add_(1.0);
    if (parameters.empty()) continue;
    at::_fused_adamw_(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, steps, options.lr(),
                      options.beta1(), options.beta2(), options.weight_decay(), options.eps(),
                      /*amsgrad=*/false,
                      /*maximize=*/false);
    // at::_fused_adamw_ does not change the version counters, by which BitLinear sees that its packed weight
    // is outdated.
    for (const torch::Tensor& parameter : parameters) parameter.unsafeGetTensorImpl()->bump_version();
  }
  return loss;
}

void AdamW::step(const torch::Tensor& learning_rate, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_gradients;
  std::vector<torch::Tensor> counts;
  std::vector<Lists> all;
  for (std::size_t group = 0; group < moments_.size(); ++group) {
    all.push_back(lists_of(group));
    counts.insert(counts.end(), all.back().steps.begin(), all.back().steps.end());
  }
  if (counts.empty()) return;
  at::_foreach_add_(counts, 1);
  const torch::Tensor convolution_rate = learning_rate * convolution_factor_;
  for (std::size_t group = 0; group < all.size(); ++group) {
    const Lists& lists = all[group];
    if (lists.parameters.empty()) continue;
    const auto& options = static_cast<const AdamWOptions&>(param_groups_[group].options());
    at::_fused_adamw_(lists.parameters, lists.gradients, lists.averages, lists.squares,
                      /*max_exp_avg_sqs=*/{}, lists.steps,
                      group == convolutions ? convolution_rate : learning_rate, options.beta1(),
                      options.beta2(), options.weight_decay(), options.eps(), /*amsgrad=*/false,
                      /*maximize=*/false, /*grad_scale=*/{}, found_inf);
    for (const torch::Tensor& parameter : lists.parameters) {
      parameter.unsafeGetTensorImpl()->bump_version();  // as above
    }
  }
  at::_foreach_add_(counts, found_inf, -1);  // a skipped step does not count
}

AdamW::Lists AdamW::lists_of(std::size_t group) {
  Lists lists;
  for (std::size_t i = 0; i < moments_[group].size(); ++i) {
    const torch::Tensor& parameter = param_groups_[group].params()[i];
    torch::Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    // The fused kernel reads raw memory: all of its tensors must have the strides of the parameter.
    if (gradient.strides() != parameter.strides()) gradient = torch::empty_like(parameter).copy_(gradient);
    const Moments& moments = moments_[group][i];
    lists.parameters.push_back(parameter);
    lists.gradients.push_back(gradient);
    lists.averages.push_back(moments.average);
    lists.squares.push_back(moments.average_of_squares);
    lists.steps.push_back(moments.step);
  }
  return lists;
}

void AdamW::set_learning_rate(double value) {
  for (std::size_t group = 0; group < groups; ++group) {
    param_groups_[group].options().set_lr(group == convolutions ? value * convolution_factor_ : value);
  }
}

std::map<std::string, torch::Tensor> AdamW::named_state() const {
  std::map<std::string, torch::Tensor> state;
  for (const auto& group : moments_) {
    for (const Moments& moments : group) {
      state[moments.name + ".exp_avg"] = moments.average;
      state[moments.name + ".exp_avg_sq"] = moments.average_of_squares;
      state[moments.name + ".step"] = moments.step;
    }
  }
  return state;
}

}  // namespace trit::train

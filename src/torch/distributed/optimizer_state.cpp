// SPDX-License-Identifier: MIT
//
// LibTorch's optimizers have a class of state each. What they have in common is that it can be written to an
// archive and read from one.
#include "torch/distributed/optimizer_state.h"

#include <sstream>

namespace trit::distributed {
namespace {

torch::serialize::InputArchive reread(torch::serialize::OutputArchive& archive) {
  std::stringstream bytes;
  archive.save_to(bytes);
  torch::serialize::InputArchive result;
  result.load_from(bytes);
  return result;
}

torch::optim::OptimizerParamState* find(torch::optim::Optimizer& optimizer, const torch::Tensor& parameter) {
  const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
  return found == optimizer.state().end() ? nullptr : found->second.get();
}

}  // namespace

std::map<std::string, torch::Tensor> state_of(torch::optim::Optimizer& optimizer,
                                              const torch::Tensor& parameter) {
  std::map<std::string, torch::Tensor> result;
  auto* const state = find(optimizer, parameter);
  if (state == nullptr) {
    return result;
  }
  torch::serialize::OutputArchive written;
  static_cast<const torch::optim::OptimizerParamState*>(state)->serialize(written);
  auto archive = reread(written);
  for (const std::string& key : archive.keys()) {
    torch::IValue value;
    archive.read(key, value);
    if (value.isTensor() && value.toTensor().defined()) {
      result[key] = value.toTensor();
    } else if (value.isInt()) {
      result[key] = torch::scalar_tensor(value.toInt(), torch::kInt64);
    } else if (value.isDouble()) {
      result[key] = torch::scalar_tensor(value.toDouble(), torch::kFloat64);
    }
  }
  return result;
}

void set_state(torch::optim::Optimizer& optimizer, const torch::Tensor& parameter,
               const std::map<std::string, torch::Tensor>& state) {
  auto* const target = find(optimizer, parameter);
  if (target == nullptr || state.empty()) {
    return;
  }
  torch::serialize::OutputArchive written;
  for (const auto& [key, value] : state) {
    if (value.dim() > 0) {
      written.write(key, torch::IValue(value));
    } else if (value.scalar_type() == torch::kInt64) {
      written.write(key, torch::IValue(value.item<std::int64_t>()));
    } else {
      written.write(key, torch::IValue(value.item<double>()));
    }
  }
  auto archive = reread(written);
  target->serialize(archive);
}

}  // namespace trit::distributed

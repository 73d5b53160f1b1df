// SPDX-License-Identifier: MIT
#include "train_cifar10/learner.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <optional>
#include <string>

#include "common/scale_option.h"
#include "trit/error.h"

namespace trit::train {
namespace {

/// Whether the operators of trit::nn::BitLinear are registered for CUDA in this process.
bool has_cuda_kernels() {
  const auto schema = c10::Dispatcher::singleton().findSchema({"trit::norm_quant", ""});
  return schema.has_value() && schema->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

apps::Scales scales_for(const TrainOptions& options) {
  const std::optional<apps::Scales> scales = apps::scales_of(options.scale);
  if (!scales) {
    throw Error(fmt::format("--scale {}: wanted tensor, row or group:G", options.scale));
  }
  if (scales->group != 0 && options.backward != BackwardKind::exact) {
    throw Error(fmt::format("--scale {}: --backward {} takes no group scales, wanted --backward exact",
                            options.scale, name_of(options.backward)));
  }
  return *scales;
}

SimpleBitNetCNN seeded_network(const TrainOptions& options, torch::Device device) {
  torch::manual_seed(options.seed);
  SimpleBitNetCNN network(options.linear, options.backward, scales_for(options));
  network->to(device);
  if (device.is_cuda()) {
    // Convolutions in channels-last order read weights and write gradients in that order.
    for (torch::Tensor& parameter : network->parameters()) {
      if (parameter.dim() == 4)
        parameter.set_data(parameter.data().contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
  return network;
}

torch::ScalarType compute_type(Precision precision) {
  return precision == Precision::bf16 ? torch::kBFloat16 : torch::kFloat16;
}

}  // namespace

torch::Device device_from_name(const std::string& name) {
  const bool gpu = torch::cuda::is_available(), kernels = has_cuda_kernels();
  const bool asked = name.starts_with("cuda");
  if (asked && !gpu)
    throw Error(fmt::format("--device {}: torch finds no CUDA device on this machine", name));
  if (asked && !kernels) {
    throw Error(
        fmt::format("--device {}: this build of trit has no CUDA kernels; train with --device cpu", name));
  }
  if (asked && name != "cuda") {
    const int number = std::stoi(name.substr(std::string("cuda:").size()));
    const int count = static_cast<unsigned char>(torch::cuda::device_count());
    if (number >= count) {
      throw Error(fmt::format("--device {}: this machine has {} GPU{}, cuda:0{}", name, count,
                              count == 1 ? "" : "s",
                              count == 1 ? "" : fmt::format(" to cuda:{}", count - 1)));
    }
    return {torch::kCUDA, static_cast<c10::DeviceIndex>(number)};
  }
  return name != "cpu" && gpu && kernels ? torch::kCUDA : torch::kCPU;
}

Learner::Learner(const TrainOptions& options, const Processes& processes)
    : options_(options),
      device_(processes.device()),
      network_(seeded_network(options, device_)),
      optimizer_(network_->named_parameters(), AdamWOptions(options.learning_rate)
                                                   .weight_decay(options.weight_decay)
                                                   .convolution_factor(options.convolution_factor)),
      scaler_(device_, trit::amp::GradScalerOptions().enabled(options.precision == Precision::fp16)) {
  if (processes.several()) reducer_.emplace(*network_, processes.group());
}

Learner::Output Learner::forward(const torch::Tensor& x, const torch::Tensor& labels) {
  namespace F = torch::nn::functional;
  const trit::amp::AutocastGuard autocast(device_.type(), compute_type(options_.precision),
                                          options_.precision != Precision::fp32);
  if (reducer_) reducer_->before_forward();
  const torch::Tensor logits = network_(x).to(torch::kFloat32);
  if (reducer_) reducer_->before_backward({logits});
  return {logits, F::cross_entropy(logits, labels,
                                   F::CrossEntropyFuncOptions().label_smoothing(options_.label_smoothing))};
}

std::map<std::string, torch::Tensor> Learner::tensors() const {
  std::map<std::string, torch::Tensor> result;
  for (const auto& item : network_->named_parameters()) result["network." + item.key()] = item.value();
  for (const auto& item : network_->named_buffers()) result["network." + item.key()] = item.value();
  for (const auto& [name, tensor] : optimizer_.named_state()) result["optimizer." + name] = tensor;
  result["generator.cpu"] = at::globalContext().defaultGenerator(torch::kCPU).get_state();
  return result;
}

void Learner::restore(const std::map<std::string, torch::Tensor>& tensors,
                      const nlohmann::json& scaler_state) {
  const torch::NoGradGuard no_gradients;
  for (auto& [name, target] : this->tensors()) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw Error(fmt::format("checkpoint: there is no tensor {}", name));
    const torch::Tensor& source = found->second;
    if (source.sizes() != target.sizes() || source.scalar_type() != target.scalar_type()) {
      throw Error(fmt::format("checkpoint: tensor {} has another shape or type", name));
    }
    torch::Tensor(target).copy_(source);
  }
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU);
  generator.set_state(tensors.at("generator.cpu"));
  scaler_.load_state_dict(scaler_state.get<std::map<std::string, double>>());
}

void Learner::take_from_first(const distributed::ProcessGroup& group) {
  const torch::NoGradGuard no_gradients;
  for (auto& [name, tensor] : tensors()) {
    torch::Tensor values = tensor.detach().contiguous();
    group.broadcast(values);
    if (name == "generator.cpu") {
      at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU);
      generator.set_state(values);
    } else {
      tensor.detach().copy_(values);
    }
  }
  const auto scaler = nlohmann::json::parse(group.broadcast(nlohmann::json(scaler_.state_dict()).dump()));
  scaler_.load_state_dict(scaler.get<std::map<std::string, double>>());
}

}  // namespace trit::train

// SPDX-License-Identifier: MIT
//
// Network, optimiser and loss scaler.
#pragma once

#include <torch/torch.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "train_cifar10/adamw.h"
#include "train_cifar10/network.h"
#include "train_cifar10/options.h"
#include "train_cifar10/processes.h"
#include "trit/torch.h"

namespace trit::train {

/// The device "auto", "cpu", "cuda" or "cuda:N". Throws trit::Error for a GPU that torch does not see, and
/// for any GPU if this build has no kernels for it.
torch::Device device_from_name(const std::string& name);

class Learner {
 public:
  /// The parameters are drawn with options.seed. With several processes, backward averages the gradients.
  Learner(const TrainOptions& options, const Processes& processes);

  struct Output {
    torch::Tensor logits;  // float32 [images, 10]
    torch::Tensor loss;    // float32 [], mean over the batch
  };
  /// Logits and loss of x [images, 3, 32, 32] and labels int64 [images], in the precision of the options.
  Output forward(const torch::Tensor& x, const torch::Tensor& labels);

  SimpleBitNetCNN& network() { return network_; }
  AdamW& optimizer() { return optimizer_; }
  trit::amp::GradScaler& scaler() { return scaler_; }
  torch::Device device() const { return device_; }

  /// Parameters, optimiser state and generator by reference, under stable names; restore() copies into them.
  std::map<std::string, torch::Tensor> tensors() const;
  nlohmann::json scaler_state() const { return scaler_.state_dict(); }
  /// Throws trit::Error if a tensor is missing or has another shape or type.
  void restore(const std::map<std::string, torch::Tensor>& tensors, const nlohmann::json& scaler_state);
  /// Collective, with several processes: the tensors and the scaler of the first one.
  void take_from_first(const distributed::ProcessGroup& group);

 private:
  TrainOptions options_;
  torch::Device device_;
  SimpleBitNetCNN network_;
  AdamW optimizer_;
  trit::amp::GradScaler scaler_;
  std::optional<distributed::GradientReducer> reducer_;
};

}  // namespace trit::train

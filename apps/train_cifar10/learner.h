// SPDX-License-Identifier: MIT
//
// The part of a run that learns: network, optimiser, loss scaler. One call is one step.
#pragma once

#include <torch/torch.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "train_cifar10/adamw.h"
#include "train_cifar10/batches.h"
#include "train_cifar10/network.h"
#include "train_cifar10/options.h"
#include "trit/torch.h"

namespace trit::train {

/// "auto", "cpu", "cuda" or "cuda:N" as a device. Throws trit::Error for a GPU where torch sees none, or
/// fewer, or this build has no kernels for it.
torch::Device device_from_name(const std::string& name);

class Learner {
 public:
  struct StepResult {
    double loss = 0.0;         // of the batch, mean
    std::int64_t correct = 0;  // images whose largest logit was their label's
    bool taken = true;         // false: loss or gradient was not finite and the parameters are as before
  };

  /// Parameters are drawn with options.seed.
  Learner(const TrainOptions& options, torch::Device device);

  StepResult step(const Batch& batch, double learning_rate);

  SimpleBitNetCNN& network() { return network_; }
  AdamW& optimizer() { return optimizer_; }
  trit::amp::GradScaler& scaler() { return scaler_; }
  torch::Device device() const { return device_; }

  /// Parameters, optimiser state and generator by reference, under stable names; restoring copies into them.
  std::map<std::string, torch::Tensor> tensors() const;
  nlohmann::json scaler_state() const { return scaler_.state_dict(); }
  /// Throws trit::Error if a tensor is missing or has another shape or type.
  void restore(const std::map<std::string, torch::Tensor>& tensors, const nlohmann::json& scaler_state);

 private:
  TrainOptions options_;
  torch::Device device_;
  SimpleBitNetCNN network_;
  AdamW optimizer_;
  trit::amp::GradScaler scaler_;
};

}  // namespace trit::train

// SPDX-License-Identifier: MIT
//
// The processes of a run: this one, or those that torchrun has started. Rank 0 prints and writes files.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "train_cifar10/options.h"
#include "train_cifar10/part.h"
#include "trit/distributed.h"

namespace trit::train {

/// The first process has stopped, and says why.
struct FirstProcessStopped : std::runtime_error {
  FirstProcessStopped() : runtime_error("rank 0 has stopped") {}
};

class Processes {
 public:
  /// Joins the others, if the environment says that there are some, and finds this process' device. Throws
  /// trit::Error.
  explicit Processes(const TrainOptions& options);

  bool several() const { return group_ != nullptr && group_->size() > 1; }
  bool first() const { return part().index == 0; }
  Part part() const { return group_ != nullptr ? Part{group_->rank(), group_->size()} : Part{}; }
  torch::Device device() const { return device_; }
  /// Only if there are several.
  const distributed::ProcessGroup& group() const { return *group_; }

  // With one process these do nothing to their argument; otherwise they are collective.
  /// values = sums over the processes.
  void sum(std::span<double> values) const;
  void sum(std::span<std::uint8_t> values) const;
  /// Whether it is true for one of them.
  bool any(bool value) const;
  /// What the first process' `work` returns. If it throws there, the others throw FirstProcessStopped.
  std::string from_first(const std::function<std::string()>& work) const;

 private:
  std::unique_ptr<distributed::ProcessGroup> group_;  // null: this process is alone
  torch::Device device_;
};

}  // namespace trit::train

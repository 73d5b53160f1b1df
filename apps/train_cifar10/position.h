// SPDX-License-Identifier: MIT
//
// How far a run has come. A checkpoint is this and the learner's tensors.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train_cifar10/metrics.h"
#include "train_cifar10/step_sums.h"

namespace trit::train {

struct Position {
  std::int64_t epoch = 0;    // finished epochs
  std::int64_t batch = 0;    // finished batches of the current one
  std::int64_t step = 0;     // finished batches of all
  std::int64_t skipped = 0;  // consecutive skipped steps up to now
  // Of the current epoch:
  double loss_sum = 0.0;  // over images of steps with a finite loss
  std::int64_t loss_images = 0;
  std::int64_t correct = 0;
  double seconds = 0.0;
  std::vector<EpochMetrics> history = {};

  /// Moves on by `steps` steps.
  void add(std::int64_t steps, const StepSums& sums);

  /// Means over the images of the epoch's steps with a finite loss; NaN if there are none.
  double mean_loss() const;
  double accuracy() const;  // percent
};

nlohmann::json to_json(const Position& position);
Position position_from_json(const nlohmann::json& json);

/// "step 130 (epoch 2, batch 51)" for a step that counts from 1.
std::string describe_step(std::int64_t step, std::int64_t batches_per_epoch);

/// What is wrong after an epoch of `batches_per_epoch` steps, or an empty text. An epoch in which every step
/// was skipped is lost. With a loss scaler (`scaled`) all steps may overflow while it searches for its scale:
/// then an epoch is lost only if no loss was finite.
std::string lost_epoch(const Position& position, std::int64_t batches_per_epoch, bool scaled);

}  // namespace trit::train

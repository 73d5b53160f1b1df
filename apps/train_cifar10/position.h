// SPDX-License-Identifier: MIT
//
// Where a run stands. With the learner's tensors it is all that a checkpoint has.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train_cifar10/metrics.h"

namespace trit::train {

struct Position {
  std::int64_t epoch = 0;    // finished epochs
  std::int64_t batch = 0;    // finished batches of the current one
  std::int64_t step = 0;     // finished batches of all
  std::int64_t skipped = 0;  // steps in a row that were left out, up to now
  // Of the current epoch:
  double loss_sum = 0.0;  // over images of steps with a finite loss
  std::int64_t loss_images = 0;
  std::int64_t correct = 0;
  double seconds = 0.0;
  std::vector<EpochMetrics> history = {};

  /// Means over the images of the epoch's steps with a finite loss; NaN if there is none.
  double mean_loss() const;
  double accuracy() const;  // percent
};

nlohmann::json to_json(const Position& position);
Position position_from_json(const nlohmann::json& json);

/// "step 130 (epoch 2, batch 51)" for a step that counts from 1.
std::string describe_step(std::int64_t step, std::int64_t batches_per_epoch);

/// What is wrong after an epoch of `batches_per_epoch` steps, or nothing: an epoch in which no step changed
/// the parameters is lost. `scaled`: under a loss scaler, whose first steps may all overflow while it looks
/// for its scale; there only an epoch without one finite loss is lost.
std::string lost_epoch(const Position& position, std::int64_t batches_per_epoch, bool scaled);

}  // namespace trit::train

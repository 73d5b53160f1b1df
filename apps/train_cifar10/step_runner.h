// SPDX-License-Identifier: MIT
//
// The part of training that depends on the device: taking steps, and evaluating. step_runner.cpp has the
// CPU's, gpu/steps.cpp the GPU's; the recipe around them (trainer.cpp) is the same.
#pragma once

#include <functional>
#include <memory>

#include "train_cifar10/data.h"
#include "train_cifar10/evaluate.h"
#include "train_cifar10/learner.h"
#include "train_cifar10/position.h"

namespace trit::train {

class StepRunner {
 public:
  struct Done {
    std::int64_t steps;
    StepSums sums;  // over these steps
  };

  virtual ~StepRunner() = default;
  /// The next step is batch `position.batch` of epoch `position.epoch`.
  virtual void begin_epoch(const Position& position) = 0;
  /// Takes at least one and at most `max_steps` steps of the epoch, and waits for them.
  virtual Done run(std::int64_t max_steps) = 0;
  /// The network on the test images. `stop` is asked between batches; a stopped evaluation means nothing.
  virtual Evaluation evaluate(const std::function<bool()>& stop) = 0;
};

/// A runner for learner.device(), which takes this process' part of each batch. The arguments but `options`
/// must outlive it. Sums are of whole batches.
std::unique_ptr<StepRunner> make_step_runner(const TrainOptions& options, const Processes& processes,
                                             const TrainingData& data, Learner& learner);

}  // namespace trit::train

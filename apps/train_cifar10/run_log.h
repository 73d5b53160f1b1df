// SPDX-License-Identifier: MIT
//
// What a run reports: lines on standard output, metrics.jsonl and TensorBoard events.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "train_cifar10/metrics.h"
#include "train_cifar10/options.h"
#include "train_cifar10/position.h"
#include "train_cifar10/tensorboard.h"

namespace trit::train {

/// A line on standard output. One that cannot be written is dropped: the files are the results.
void say(const std::string& text);
/// A warning on standard error.
void warn(const std::string& text);
/// From now on, say() and warn() do nothing: another process reports.
void be_silent();

class RunLog {
 public:
  /// A run of `steps` steps that continues at `position`. `constants` go into every line of metrics.jsonl.
  /// After be_silent() no file is written.
  RunLog(const TrainOptions& options, std::int64_t steps, const nlohmann::ordered_json& constants,
         const Position& position);

  /// Steps from `step` (0-based) to the next one that becomes a TensorBoard event, that one included: every
  /// step of a short run, otherwise every 50th, and always the first and the last.
  std::int64_t steps_to_event(std::int64_t step) const;
  /// After step number `step` (from 1), which is written if it is one of those.
  void step(std::int64_t step, double loss, double learning_rate);
  /// After an epoch and its evaluation; `step` is the number of steps so far.
  void epoch(const EpochMetrics& metrics, std::int64_t step);

 private:
  std::string dataset_;
  std::int64_t epochs_, steps_;
  std::optional<MetricsFile> metrics_;
  std::optional<EventFile> events_;
};

}  // namespace trit::train

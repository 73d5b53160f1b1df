// SPDX-License-Identifier: MIT
#include "train_cifar10/run_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "common/standard_streams.h"
#include "train_cifar10/output_paths.h"

namespace trit::train {
namespace {

constexpr std::int64_t kShortRun = 1000, kStepsPerEvent = 50;

bool silent = false;

}  // namespace

void be_silent() { silent = true; }

void say(const std::string& text) {
  if (silent) return;
  std::fputs((text + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void warn(const std::string& text) {
  if (!silent) apps::say("train_cifar10: warning: " + text);
}

RunLog::RunLog(const TrainOptions& options, std::int64_t steps, const nlohmann::ordered_json& constants,
               const Position& position)
    : dataset_(apps::name_of(options.dataset)), epochs_(options.epochs), steps_(steps) {
  if (silent) return;
  metrics_.emplace(metrics_path(options), constants, position.history);
  events_.emplace(options.out, position.step);
}

std::int64_t RunLog::steps_to_event(std::int64_t step) const {
  if (step == 0 || steps_ <= kShortRun) return 1;
  return std::min(kStepsPerEvent - step % kStepsPerEvent, std::max<std::int64_t>(1, steps_ - step));
}

void RunLog::step(std::int64_t step, double loss, double learning_rate) {
  if (!events_ || steps_to_event(step - 1) != 1) return;
  const EventFile::Scalar scalars[] = {{"step/loss", loss}, {"step/learning_rate", learning_rate}};
  events_->add(step, scalars);
}

void RunLog::epoch(const EpochMetrics& metrics, std::int64_t step) {
  if (!std::isfinite(metrics.test_loss)) {
    warn(fmt::format("the test loss of epoch {} is {}: the parameters may be lost", metrics.epoch,
                     metrics.test_loss));
  }
  if (!metrics_ || !events_) return;
  metrics_->append(metrics);
  const EventFile::Scalar scalars[] = {{"epoch/train_loss", metrics.train_loss},
                                       {"epoch/train_accuracy", metrics.train_accuracy},
                                       {"epoch/test_loss", metrics.test_loss},
                                       {"epoch/test_accuracy", metrics.test_accuracy},
                                       {"epoch/images_per_second", metrics.images_per_second}};
  events_->add(step, scalars);
  say(fmt::format(
      "epoch {:2}/{}  {}  loss {:.4f}  train {:5.2f} %  test {:5.2f} %  {:6.2f} s  {:5.0f} images/s",
      metrics.epoch, epochs_, dataset_, metrics.train_loss, metrics.train_accuracy, metrics.test_accuracy,
      metrics.seconds, metrics.images_per_second));
}

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/position.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace trit::train {
namespace {

double share(double sum, std::int64_t images) {
  return images > 0 ? sum / static_cast<double>(images) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

void Position::add(std::int64_t steps, const StepSums& sums) {
  batch += steps;
  step += steps;
  skipped = sums.skipped;
  loss_sum += sums.loss_sum;
  loss_images += sums.loss_images;
  correct += sums.correct;
}

double Position::mean_loss() const { return share(loss_sum, loss_images); }
double Position::accuracy() const { return share(100.0 * static_cast<double>(correct), loss_images); }

nlohmann::json to_json(const Position& position) {
  nlohmann::json history = nlohmann::json::array();
  for (const EpochMetrics& metrics : position.history) history.emplace_back(to_json(metrics));
  return {
      {"epoch", position.epoch},     {"batch", position.batch},       {"step", position.step},
      {"skipped", position.skipped}, {"loss_sum", position.loss_sum}, {"loss_images", position.loss_images},
      {"correct", position.correct}, {"seconds", position.seconds},   {"history", std::move(history)}};
}

Position position_from_json(const nlohmann::json& json) {
  Position position{.epoch = json.at("epoch"),
                    .batch = json.at("batch"),
                    .step = json.at("step"),
                    .skipped = json.at("skipped"),
                    .loss_sum = json.at("loss_sum"),
                    .loss_images = json.at("loss_images"),
                    .correct = json.at("correct"),
                    .seconds = json.at("seconds"),
                    .history = {}};
  for (const nlohmann::json& metrics : json.at("history"))
    position.history.push_back(metrics_from_json(metrics));
  return position;
}

std::string describe_step(std::int64_t step, std::int64_t batches_per_epoch) {
  return fmt::format("step {} (epoch {}, batch {})", step, (step - 1) / batches_per_epoch + 1,
                     (step - 1) % batches_per_epoch + 1);
}

std::string lost_epoch(const Position& position, std::int64_t batches_per_epoch, bool scaled) {
  const bool none_taken = position.skipped >= batches_per_epoch;
  const bool searching = scaled && position.loss_images > 0;
  if (!none_taken || searching) return {};
  return fmt::format(
      "no step of epoch {} had a finite loss and gradient; the first that was not finite is {}",
      position.epoch + 1, describe_step(position.step - position.skipped + 1, batches_per_epoch));
}

}  // namespace trit::train

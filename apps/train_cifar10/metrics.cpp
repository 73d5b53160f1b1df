// SPDX-License-Identifier: MIT
#include "train_cifar10/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::train {
namespace {

nlohmann::ordered_json number_or_null(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

double number_or_nan(const nlohmann::json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

}  // namespace

nlohmann::ordered_json to_json(const EpochMetrics& metrics) {
  return {{"epoch", metrics.epoch},
          {"train_loss", number_or_null(metrics.train_loss)},
          {"train_accuracy", number_or_null(metrics.train_accuracy)},
          {"test_accuracy", number_or_null(metrics.test_accuracy)},
          {"seconds", number_or_null(metrics.seconds)},
          {"images_per_second", number_or_null(metrics.images_per_second)},
          {"test_loss", number_or_null(metrics.test_loss)},
          {"learning_rate", number_or_null(metrics.learning_rate)}};
}

EpochMetrics metrics_from_json(const nlohmann::json& json) {
  return {.epoch = json.at("epoch"),
          .train_loss = number_or_nan(json.at("train_loss")),
          .train_accuracy = number_or_nan(json.at("train_accuracy")),
          .test_loss = number_or_nan(json.at("test_loss")),
          .test_accuracy = number_or_nan(json.at("test_accuracy")),
          .seconds = number_or_nan(json.at("seconds")),
          .images_per_second = number_or_nan(json.at("images_per_second")),
          .learning_rate = number_or_nan(json.at("learning_rate"))};
}

void check_metrics_file_is_new(const std::filesystem::path& path) {
  std::error_code ignored;  // a path that cannot be examined fails when it is written
  if (std::filesystem::is_regular_file(path, ignored) && std::filesystem::file_size(path, ignored) > 0) {
    throw Error(
        fmt::format("{} has content of another run; move it, or choose another --metrics", path.string()));
  }
}

MetricsFile::MetricsFile(std::filesystem::path path, nlohmann::ordered_json constants,
                         const std::vector<EpochMetrics>& history)
    : path_(std::move(path)), constants_(std::move(constants)) {
  const bool exists = std::filesystem::exists(path_);
  // A pipe or a terminal can only be appended to.
  if (exists && !std::filesystem::is_regular_file(path_)) return;
  if (history.empty()) check_metrics_file_is_new(path_);
  std::string text;
  for (const EpochMetrics& metrics : history) text += line(metrics);
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(text))};
  io::write_file_atomically(path_, parts);
}

void MetricsFile::append(const EpochMetrics& metrics) {
  std::ofstream file(path_, std::ios::app);
  file << line(metrics) << std::flush;
  if (!file) throw Error(fmt::format("cannot write {} (is the disk full?)", path_.string()));
}

std::string MetricsFile::line(const EpochMetrics& metrics) const {
  nlohmann::ordered_json json = to_json(metrics);
  json.update(constants_);
  return json.dump() + "\n";
}

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/metrics.h"

#include <fmt/format.h>

#include <fstream>
#include <string>

#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::train {

nlohmann::ordered_json to_json(const EpochMetrics& metrics) {
  return {{"epoch", metrics.epoch},
          {"train_loss", metrics.train_loss},
          {"train_accuracy", metrics.train_accuracy},
          {"test_accuracy", metrics.test_accuracy},
          {"seconds", metrics.seconds},
          {"images_per_second", metrics.images_per_second},
          {"test_loss", metrics.test_loss},
          {"learning_rate", metrics.learning_rate}};
}

EpochMetrics metrics_from_json(const nlohmann::json& json) {
  return {.epoch = json.at("epoch"),
          .train_loss = json.at("train_loss"),
          .train_accuracy = json.at("train_accuracy"),
          .test_loss = json.at("test_loss"),
          .test_accuracy = json.at("test_accuracy"),
          .seconds = json.at("seconds"),
          .images_per_second = json.at("images_per_second"),
          .learning_rate = json.at("learning_rate")};
}

MetricsFile::MetricsFile(std::filesystem::path path, nlohmann::ordered_json constants,
                         const std::vector<EpochMetrics>& history)
    : path_(std::move(path)), constants_(std::move(constants)) {
  const bool exists = std::filesystem::exists(path_);
  // A pipe or a terminal can only be appended to.
  if (exists && !std::filesystem::is_regular_file(path_)) return;
  if (exists && history.empty() && std::filesystem::file_size(path_) > 0) {
    throw Error(fmt::format(
        "{} has content that is not of this run; move it away, or choose another --metrics", path_.string()));
  }
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

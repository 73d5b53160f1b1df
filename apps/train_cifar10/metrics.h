// SPDX-License-Identifier: MIT
//
// The metrics of each finished epoch, and their file: one JSON object per line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

namespace trit::train {

struct EpochMetrics {
  std::int64_t epoch = 0;       // from 1
  double train_loss = 0.0;      // mean over the epoch's images, as augmented, while training
  double train_accuracy = 0.0;  // percent, likewise
  double test_loss = 0.0;       // cross entropy without smoothing
  double test_accuracy = 0.0;   // percent
  double seconds = 0.0;         // of training, evaluation and start-up excluded
  double images_per_second = 0.0;
  double learning_rate = 0.0;  // of the epoch's last step
};

/// JSON has no NaN and no infinity: such a value becomes null, and null is read as NaN.
nlohmann::ordered_json to_json(const EpochMetrics& metrics);
EpochMetrics metrics_from_json(const nlohmann::json& json);

/// Throws trit::Error for a regular file with content, which a new run would overwrite.
void check_metrics_file_is_new(const std::filesystem::path& path);

/// The lines of a metrics file. `constants` (data set, seed, ...) are added to every line.
class MetricsFile {
 public:
  /// Starts the file with the epochs of `history`: a resumed run drops lines from after its checkpoint.
  /// Throws trit::Error if it cannot be written, or if `history` is empty and the file is not.
  MetricsFile(std::filesystem::path path, nlohmann::ordered_json constants,
              const std::vector<EpochMetrics>& history);
  /// Appends a line and flushes it.
  void append(const EpochMetrics& metrics);

 private:
  std::string line(const EpochMetrics& metrics) const;

  std::filesystem::path path_;
  nlohmann::ordered_json constants_;
};

}  // namespace trit::train

// SPDX-License-Identifier: MIT
//
// The folder of a run: one process at a time, and never over another run.
//
//   OUT/checkpoints/checkpoint-<step>.safetensors   the last two
//   OUT/metrics.jsonl                               one JSON object an epoch
//   OUT/events.out.tfevents.*                       the same and more for TensorBoard
//   OUT/model.safetensors                           at the end: the packed model
//   OUT/.lock                                       held while a process works here
#pragma once

#include <filesystem>

namespace trit::train {

class RunFolder {
 public:
  /// Creates the folder if need be and locks it until destruction. Throws trit::Error where another process
  /// holds it, where it is not a folder or not writable, or where it has content and `resume` is false.
  RunFolder(const std::filesystem::path& path, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path model() const { return path_ / "model.safetensors"; }

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace trit::train

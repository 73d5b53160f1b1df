// SPDX-License-Identifier: MIT
//
// The folder of a run. Only one process works in it, and no run overwrites another.
//
//   OUT/checkpoints/checkpoint-<step>.safetensors   the last two
//   OUT/metrics.jsonl                               one JSON object per epoch
//   OUT/events.out.tfevents.*                       for TensorBoard: the same and the steps
//   OUT/model.safetensors                           at the end: the packed model
//   OUT/.lock                                       held while a process works here
#pragma once

#include <filesystem>

namespace trit::train {

class RunFolder {
 public:
  /// Locks the folder until destruction. Throws trit::Error if another process holds it, and if it is not a
  /// folder or not writable.
  /// With `resume` it must hold a run with a checkpoint, and nothing is created. Without, it is created if need
  /// be and must be empty, except for what a run leaves that ended before its first checkpoint.
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

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
  /// Locks the folder until destruction. Throws trit::Error where another process holds it, and where it is
  /// not a folder or not writable.
  /// With `resume` it must hold a run with a checkpoint; nothing is created otherwise. Without, it is made if
  /// need be and must have no content, apart from what a run leaves that ended before its first checkpoint.
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

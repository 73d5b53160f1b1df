// SPDX-License-Identifier: MIT
//
// Checkpoints: everything that a run needs to resume as if it had never stopped. A checkpoint is a safetensors
// file whose metadata holds the state as JSON and a CRC-32C of the state and of every tensor. It is written
// atomically, and the previous one is kept.
#pragma once

#include <torch/torch.h>

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace trit::train {

struct Checkpoint {
  nlohmann::json state;                          // numbers keep every bit
  std::map<std::string, torch::Tensor> tensors;  // on the CPU when loaded
};

/// Throws trit::Error (full disk, no permission); the file at `path` is then as it was.
void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
/// Throws trit::Error that names the file for anything but what save_checkpoint wrote.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// The checkpoints of a run.
class CheckpointStore {
 public:
  explicit CheckpointStore(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Saves as the checkpoint of `step` and deletes all but the last two.
  void save(std::int64_t step, const Checkpoint& checkpoint) const;

  /// The newest intact checkpoint; `warn` is called for each damaged one. Nothing if the folder has none.
  /// Throws trit::Error if all of them are damaged.
  std::optional<Checkpoint> load_newest(const std::function<void(const std::string&)>& warn) const;

  /// Files of checkpoints, oldest first.
  std::vector<std::filesystem::path> files() const;

 private:
  std::filesystem::path folder_;
};

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/hints.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <system_error>

namespace trit::train {
namespace {

namespace fs = std::filesystem;

fs::path executable() {
  std::error_code failure;
  return fs::read_symlink("/proc/self/exe", failure);
}

bool is_program(const fs::path& path) {
  std::error_code failure;
  return fs::is_regular_file(path, failure) && access(path.c_str(), X_OK) == 0;
}

/// Relative to the current folder if `path` is below it, for a shell.
std::string callable(const fs::path& path) {
  std::error_code failure;
  const fs::path relative = path.lexically_relative(fs::current_path(failure));
  if (failure || relative.empty() || *relative.begin() == "..") return shell_quoted(path.string());
  return shell_quoted((relative.has_parent_path() ? relative : "." / relative).string());
}

}  // namespace

std::string shell_quoted(const std::string& text) {
  const char* const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=+,@%";
  if (!text.empty() && text.find_first_not_of(plain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string this_program() {
  const fs::path path = executable();
  return path.empty() ? "train_cifar10" : callable(path);
}

std::string find_program(const std::string& name) {
  const fs::path own = executable();
  if (const fs::path neighbour = own.parent_path() / name; is_program(neighbour)) return callable(neighbour);
  for (fs::path folder = own.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
    if (const fs::path path = folder / ".venv" / "bin" / name; is_program(path)) return callable(path);
  }
  const char* const search = std::getenv("PATH");
  std::istringstream folders(search == nullptr ? "" : search);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (!folder.empty() && is_program(fs::path(folder) / name)) return name;
  }
  return {};
}

std::string resume_command(const TrainOptions& options) {
  const char* const processes = std::getenv("WORLD_SIZE");
  std::string command = processes == nullptr || std::string_view(processes) == "1"
                            ? ""
                            : fmt::format("torchrun --nproc_per_node {} --no-python ", processes);
  command += fmt::format("{} --out {} --resume", this_program(), shell_quoted(options.out.string()));
  const auto add = [&](const char* name, const std::string& value) {
    if (options.given.contains(name)) command += fmt::format(" --{} {}", name, shell_quoted(value));
  };
  // Options that a checkpoint does not record.
  add("data", options.data.string());
  add("device", options.device);
  add("threads", std::to_string(options.threads));
  add("metrics", options.metrics.string());
  add("predictions", options.predictions.string());
  add("checkpoint-seconds", fmt::format("{}", options.checkpoint_seconds));
  add("timeout", fmt::format("{}", options.timeout));
  return command;
}

std::vector<std::string> closing_hints(const TrainOptions& options) {
  std::vector<std::string> lines;
  const std::string dataset(apps::name_of(options.dataset));
  // The runtime has no float layers with a norm, which the fp32 twin consists of.
  const std::string trit = options.linear == LinearKind::ternary ? find_program("trit") : "";
  if (!trit.empty()) {
    std::string command = fmt::format("{} eval {} --dataset {}", trit,
                                      shell_quoted((options.out / "model.safetensors").string()), dataset);
    if (options.dataset != apps::DatasetName::drawn) {  // that one has no files
      const fs::path data = options.data.empty() ? apps::default_folder(options.dataset) : options.data;
      command += " --data " + shell_quoted(data.string());
    }
    lines.push_back("evaluate it without torch: " + command);
  }
  if (const std::string tensorboard = find_program("tensorboard"); !tensorboard.empty()) {
    lines.push_back(
        fmt::format("view its curves: {} --logdir {}", tensorboard, shell_quoted(options.out.string())));
  }
  return lines;
}

std::string note_on_accuracy(apps::DatasetName dataset, double accuracy, std::int64_t steps) {
  constexpr double kCloseToChance = 20.0;  // of ten classes
  if (accuracy >= kCloseToChance) return {};
  const char* const expected = dataset == apps::DatasetName::drawn
                                   ? "one epoch on all 10,000 images reaches about 51 %, 20 epochs 99.7 %"
                               : dataset == apps::DatasetName::cifar10
                                   ? "20 epochs on all 50,000 images reach 80 %"
                                   : "more epochs, or more images, reach more";
  return fmt::format("{}: this is close to chance (10 %), as expected after few steps (here {}); {}",
                     apps::name_of(dataset), steps, expected);
}

}  // namespace trit::train

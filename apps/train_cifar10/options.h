// SPDX-License-Identifier: MIT
//
// The command line of a training run. Every checkpoint records the options that decide the result; a resumed
// run takes them from there and refuses a command line that contradicts them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "common/datasets.h"

namespace trit::train {

enum class LinearKind : std::uint8_t { ternary, fp32 };
enum class Precision : std::uint8_t { fp32, bf16, fp16 };
enum class BackwardKind : std::uint8_t { exact, int8_input, int8_all };  // of trit::nn::Backward
enum class Schedule : std::uint8_t { cosine, onecycle, constant };

std::string name_of(LinearKind kind);
std::string name_of(Precision precision);
std::string name_of(BackwardKind backward);
std::string name_of(Schedule schedule);

inline constexpr double kDefaultTimeout = 30.0;  // that of trit::distributed (processes.cpp)

struct TrainOptions {
  // Model and data.
  apps::DatasetName dataset = apps::DatasetName::cifar10;
  std::int64_t train_images = 0;  // the first ones; 0: all
  LinearKind linear = LinearKind::ternary;

  // The recipe (docs/training.md).
  std::int64_t epochs = 20;
  std::int64_t batch_size = 128;
  double learning_rate = 4e-3;       // the peak of the schedule
  double convolution_factor = 0.35;  // of the convolutions: latent ternary weights need larger steps
  double weight_decay = 0.2;         // of matrices and convolutions; norm weights and biases have none
  double clip = 0.0;                 // maximum norm of the gradient; 0: no clipping
  double label_smoothing = 0.0;
  double warmup_epochs = 2.0;
  Schedule schedule = Schedule::cosine;
  std::uint64_t seed = 0;
  Precision precision = Precision::fp32;
  BackwardKind backward = BackwardKind::exact;
  std::string scale = "tensor";  // of the ternary weights: apps::scales_of

  // Where and how it runs.
  std::string device = "auto";  // auto, cpu, cuda or cuda:N
  int threads = 0;              // 0: all that this process may use
  std::filesystem::path data;   // empty: apps::default_folder(dataset)
  std::filesystem::path out = "runs/train_cifar10";
  std::filesystem::path metrics;      // empty: out/metrics.jsonl
  std::filesystem::path predictions;  // empty: none
  bool resume = false;
  double checkpoint_seconds = 10.0;
  double timeout = kDefaultTimeout;  // seconds that a process waits for the others

  /// Names of the options that the command line gave, without the dashes.
  std::set<std::string> given;
};

/// Parses the command line. For --help or wrong usage it prints a message and ends the process with 0 or 2.
TrainOptions parse_command_line(int argc, char** argv);

/// The options that decide the result, as {"epochs": 20, ...}; keys are the names on the command line.
nlohmann::json to_json(const TrainOptions& options);

/// The options of a resumed run: `options` with every value of `recorded` (to_json at the start of the run).
/// Throws trit::Error that names the first option with another value on the command line. With a constant
/// schedule the number of epochs may be raised.
TrainOptions resume_options(TrainOptions options, const nlohmann::json& recorded);

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include "common/help.h"
#include "common/number_options.h"
#include "common/path_option.h"
#include "common/scale_option.h"
#include "trit/error.h"

namespace trit::train {
namespace {

/// The names of an enumeration's values on the command line.
template <typename Value>
using Names = std::vector<std::pair<std::string, Value>>;
template <typename Value>
const Names<Value> kNames;
template <>
const Names<apps::DatasetName> kNames<apps::DatasetName>{{"cifar10", apps::DatasetName::cifar10},
                                                         {"fashion-mnist", apps::DatasetName::fashion_mnist},
                                                         {"drawn", apps::DatasetName::drawn}};
template <>
const Names<LinearKind> kNames<LinearKind>{{"ternary", LinearKind::ternary}, {"fp32", LinearKind::fp32}};
template <>
const Names<Precision> kNames<Precision>{
    {"fp32", Precision::fp32}, {"bf16", Precision::bf16}, {"fp16", Precision::fp16}};
template <>
const Names<BackwardKind> kNames<BackwardKind>{{"exact", BackwardKind::exact},
                                               {"int8_input", BackwardKind::int8_input},
                                               {"int8_all", BackwardKind::int8_all}};
template <>
const Names<Schedule> kNames<Schedule>{
    {"cosine", Schedule::cosine}, {"onecycle", Schedule::onecycle}, {"constant", Schedule::constant}};

template <typename Value>
std::string name_in(Value value) {
  for (const auto& [name, candidate] : kNames<Value>) {
    if (candidate == value) return name;
  }
  throw Error("a value that has no name");
}

template <typename Value>
Value value_of(const std::string& text) {
  for (const auto& [name, value] : kNames<Value>) {
    if (name == text) return value;
  }
  throw Error(fmt::format("'{}' is not a value of this option", text));
}

/// --name NAME for an enumeration.
template <typename Value>
void add_choice(CLI::App& app, const char* name, Value& value, const char* help) {
  std::vector<std::string> names;
  for (const auto& [text, unused] : kNames<Value>) names.push_back(text);
  app.add_option_function<std::string>(
         name, [&value](const std::string& text) { value = value_of<Value>(text); }, help)
      ->type_name("NAME")
      ->default_str(name_in(value))
      ->check(CLI::IsMember(names));
}

/// Calls visit(name, value) for each option that decides the result; checkpoints record these.
template <typename Options, typename Visit>
void for_each_recorded(Options& options, const Visit& visit) {
  visit("dataset", options.dataset);
  visit("train-images", options.train_images);
  visit("linear", options.linear);
  visit("epochs", options.epochs);
  visit("batch-size", options.batch_size);
  visit("lr", options.learning_rate);
  visit("conv-lr-factor", options.convolution_factor);
  visit("weight-decay", options.weight_decay);
  visit("clip", options.clip);
  visit("label-smoothing", options.label_smoothing);
  visit("warmup-epochs", options.warmup_epochs);
  visit("schedule", options.schedule);
  visit("seed", options.seed);
  visit("precision", options.precision);
  visit("backward", options.backward);
  visit("scale", options.scale);
}

// What is wrong with the name of a device, or an empty text. Whether there is such a GPU is checked later.
std::string device_name(const std::string& name) {
  const std::string_view number = name.starts_with("cuda:") ? std::string_view(name).substr(5) : "";
  const bool numbered = !number.empty() && number.size() <= 3 &&
                        std::ranges::all_of(number, [](char digit) { return digit >= '0' && digit <= '9'; });
  return numbered || name == "auto" || name == "cpu" || name == "cuda"
             ? ""
             : "'" + name + "': wanted auto, cpu, cuda or cuda:N";
}

constexpr double kMaxTimeout = 86400;

void add_options(CLI::App& app, TrainOptions& options) {
  const auto add_count = [&](const char* name, std::int64_t& value, std::int64_t min, const char* help) {
    app.add_option(name, value, help)->type_name("N")->check(apps::whole_number(min));
  };
  const auto add_number = [&](const char* name, double& value, const char* help,
                              double max = apps::kMaxNumber) {
    app.add_option(name, value, help)->type_name("X")->check(apps::number(0, max));
  };
  const auto add_path = [&](const char* name, std::filesystem::path& path, const char* type,
                            const char* help) {
    app.add_option(name, path, help)->type_name(type)->check(apps::path_check());
  };
  add_path("--data", options.data, "FOLDER",
           "folder of the data set; if not given, TRIT_CIFAR10 or the cache folder");
  add_choice(app, "--dataset", options.dataset, "data set");
  add_count("--train-images", options.train_images, 0, "train on the first N images; 0 means all");
  add_choice(app, "--linear", options.linear, "linear layers: ternary ones, or their fp32 twins");
  add_count("--epochs", options.epochs, 1, "passes over the training images");
  add_count("--batch-size", options.batch_size, 1, "images per step");
  add_number("--lr", options.learning_rate, "peak learning rate of AdamW");
  add_number("--conv-lr-factor", options.convolution_factor,
             "learning rate of the convolutions, as a factor of --lr");
  add_number("--weight-decay", options.weight_decay, "weight decay of AdamW");
  add_number("--clip", options.clip, "maximum norm of the gradient; 0 means no clipping");
  add_number("--label-smoothing", options.label_smoothing, "label smoothing of the loss", 0.999);
  add_number("--warmup-epochs", options.warmup_epochs, "epochs of linear warm-up");
  add_choice(app, "--schedule", options.schedule, "learning rate schedule");
  app.add_option("--seed", options.seed, "seed of the weights, the data order and the augmentation")
      ->type_name("N")
      ->check(apps::whole_number(0, std::numeric_limits<std::int64_t>::max()));
  add_choice(app, "--precision", options.precision,
             "arithmetic of the float layers; bf16 and fp16 run under autocast");
  add_choice(app, "--backward", options.backward,
             "gradients of the ternary layers: exact, or dX, or dX and dW, from int8 products");
  app.add_option(
         "--scale", options.scale,
         "scales of the ternary weights: one per matrix (tensor), per output row (row), or per group of G "
         "inputs of a row, G a multiple of 32 (group:G; with --backward exact)")
      ->type_name("NAME")
      ->check(apps::scales_text());
  app.add_option("--device", options.device,
                 "where to train: auto, cpu, cuda, or cuda:N for the GPU of that number")
      ->type_name("NAME")
      ->check(device_name);
  app.add_option("--threads", options.threads, "CPU threads; 0 means all CPUs that this process may use")
      ->type_name("N")
      ->check(apps::whole_number(0, apps::kMaxThreads));
  add_path("--out", options.out, "FOLDER", "folder of the run: checkpoints, metrics, model.safetensors");
  app.add_flag("--resume", options.resume, "resume the run in --out, with its options");
  add_path("--metrics", options.metrics, "FILE",
           "metrics, one JSON object per epoch; if not given, metrics.jsonl in --out");
  add_number("--checkpoint-seconds", options.checkpoint_seconds, "seconds between checkpoints");
  app.add_option("--timeout", options.timeout,
                 "under torchrun: seconds that a process waits for the others before it gives up")
      ->type_name("X")
      ->check(apps::number(1, kMaxTimeout));
  add_path("--predictions", options.predictions, "FILE",
           "at the end, write the predicted class of each test image here, one per line");
}

}  // namespace

std::string name_of(LinearKind kind) { return name_in(kind); }
std::string name_of(Precision precision) { return name_in(precision); }
std::string name_of(BackwardKind backward) { return name_in(backward); }
std::string name_of(Schedule schedule) { return name_in(schedule); }

TrainOptions parse_command_line(int argc, char** argv) {
  TrainOptions options;
  CLI::App app("Trains SimpleBitNetCNN, whose linear layers are ternary, and exports it packed.",
               "train_cifar10");
  app.formatter(std::make_shared<apps::HelpFormatter>());
  app.option_defaults()->always_capture_default();
  app.footer(
      "What to expect: 20 epochs reach 80 % on CIFAR-10 and 99.7 % on the drawn images. On the drawn images\n"
      "one epoch reaches 51 %; with --train-images 4000 it has only 32 steps and stays at chance, 10 %.\n\n"
      "Example: train_cifar10 --dataset drawn --epochs 1 --out runs/drawn");
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() > 0) options.given.insert(option->get_lnames().front());
  }
  return options;
}

nlohmann::json to_json(const TrainOptions& options) {
  nlohmann::json json;
  for_each_recorded(options, [&]<typename Value>(const char* name, const Value& value) {
    if constexpr (std::is_enum_v<Value>) {
      json[name] = name_in(value);
    } else {
      json[name] = value;
    }
  });
  return json;
}

TrainOptions resume_options(TrainOptions options, const nlohmann::json& recorded) {
  const nlohmann::json current = to_json(options);
  const bool constant = recorded.at("schedule") == name_of(Schedule::constant);
  std::int64_t epochs = recorded.at("epochs");
  for (const auto& [name, value] : recorded.items()) {
    if (!options.given.contains(name) || current.at(name) == value) continue;
    if (name == "epochs" && constant && options.epochs > epochs) {
      epochs = options.epochs;
      continue;
    }
    throw Error(
        fmt::format("--{} {} differs from the run in {}, which has {}; leave it out, or start another run",
                    name, current.at(name).dump(), options.out.string(), value.dump()));
  }
  for_each_recorded(options, [&]<typename Value>(const char* name, Value& value) {
    if (!recorded.contains(name)) {
      return;  // an option that is younger than the run
    }
    if constexpr (std::is_enum_v<Value>) {
      value = value_of<Value>(recorded.at(name).get<std::string>());
    } else {
      value = recorded.at(name).get<Value>();
    }
  });
  options.epochs = epochs;
  return options;
}

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <map>
#include <string_view>

#include "common/number_options.h"
#include "trit/error.h"

namespace trit::train {
namespace {

const std::map<std::string, LinearKind> kLinearKinds{{"ternary", LinearKind::ternary},
                                                     {"fp32", LinearKind::fp32}};
const std::map<std::string, Precision> kPrecisions{
    {"fp32", Precision::fp32}, {"bf16", Precision::bf16}, {"fp16", Precision::fp16}};
const std::map<std::string, Schedule> kSchedules{
    {"cosine", Schedule::cosine}, {"onecycle", Schedule::onecycle}, {"constant", Schedule::constant}};

template <typename Value>
std::string name_in(const std::map<std::string, Value>& names, Value value) {
  for (const auto& [name, candidate] : names) {
    if (candidate == value) return name;
  }
  throw Error("a value that has no name");
}

template <typename Value>
std::vector<std::string> keys(const std::map<std::string, Value>& names) {
  std::vector<std::string> result;
  for (const auto& [name, value] : names) result.push_back(name);
  return result;
}

/// The command line's texts for the options that are enumerations here.
struct Texts {
  std::string dataset, linear, schedule, precision;
};

// What is wrong with the name of a device; whether there is such a GPU shows later.
std::string device_name(const std::string& name) {
  const std::string_view number = name.starts_with("cuda:") ? std::string_view(name).substr(5) : "";
  const bool numbered = !number.empty() && number.size() <= 3 &&
                        std::ranges::all_of(number, [](char digit) { return digit >= '0' && digit <= '9'; });
  return numbered || name == "auto" || name == "cpu" || name == "cuda"
             ? ""
             : "'" + name + "': wanted auto, cpu, cuda or cuda:N";
}

std::string not_empty(const std::string& path) { return path.empty() ? "an empty path" : ""; }

void add_options(CLI::App& app, TrainOptions& options, Texts& texts) {
  const auto at_least_one = apps::whole_number(1);
  const auto non_negative = apps::number(0);
  app.add_option("--data", options.data, "folder of the data set (default: TRIT_CIFAR10 or the cache folder)")
      ->check(not_empty);
  app.add_option("--dataset", texts.dataset, "data set")
      ->check(CLI::IsMember({"cifar10", "fashion-mnist", "drawn"}));
  app.add_option("--train-images", options.train_images, "train on the first N images only (0: all)")
      ->check(apps::whole_number(0));
  app.add_option("--linear", texts.linear, "linear layers: ternary, or their fp32 twins")
      ->check(CLI::IsMember(keys(kLinearKinds)));
  app.add_option("--epochs", options.epochs, "passes over the training images")->check(at_least_one);
  app.add_option("--batch-size", options.batch_size, "images per step")->check(at_least_one);
  app.add_option("--lr", options.learning_rate, "highest learning rate of AdamW")->check(non_negative);
  app.add_option("--conv-lr-factor", options.convolution_factor,
                 "learning rate of the convolutions, as a share of --lr")
      ->check(non_negative);
  app.add_option("--weight-decay", options.weight_decay, "weight decay of AdamW")->check(non_negative);
  app.add_option("--clip", options.clip, "largest norm of the gradient (0: no clipping)")
      ->check(non_negative);
  app.add_option("--label-smoothing", options.label_smoothing, "label smoothing of the loss")
      ->check(apps::number(0, 0.999));
  app.add_option("--warmup-epochs", options.warmup_epochs, "epochs of linear warm-up")->check(non_negative);
  app.add_option("--schedule", texts.schedule, "learning rate schedule")
      ->check(CLI::IsMember(keys(kSchedules)));
  app.add_option("--seed", options.seed, "seed of weights, data order and augmentation")
      ->check(apps::whole_number(0, std::numeric_limits<std::int64_t>::max()));
  app.add_option("--precision", texts.precision, "arithmetic of float layers; half types run under autocast")
      ->check(CLI::IsMember(keys(kPrecisions)));
  app.add_option("--device", options.device,
                 "where to train: auto, cpu, cuda or cuda:N, the GPU of that number")
      ->check(device_name);
  app.add_option("--threads", options.threads, "CPU threads (0: all CPUs that this process may use)")
      ->check(apps::whole_number(0, apps::kMostThreads));
  app.add_option("--out", options.out, "folder of the run: checkpoints, metrics, model.safetensors")
      ->check(not_empty);
  app.add_flag("--resume", options.resume, "go on with the run in --out, with its options");
  app.add_option("--metrics", options.metrics,
                 "metrics, one JSON object an epoch (default: OUT/metrics.jsonl)")
      ->check(not_empty);
  app.add_option("--checkpoint-seconds", options.checkpoint_seconds, "time between checkpoints")
      ->check(non_negative);
  app.add_option("--predictions", options.predictions,
                 "at the end, write the class predicted for each test image, one a line")
      ->check(not_empty);
}

}  // namespace

std::string name_of(LinearKind kind) { return name_in(kLinearKinds, kind); }
std::string name_of(Precision precision) { return name_in(kPrecisions, precision); }
std::string name_of(Schedule schedule) { return name_in(kSchedules, schedule); }

TrainOptions parse_command_line(int argc, char** argv) {
  TrainOptions options;
  Texts texts{std::string(apps::name_of(options.dataset)), name_of(options.linear), name_of(options.schedule),
              name_of(options.precision)};
  CLI::App app("Trains SimpleBitNetCNN, whose linear layers are ternary, and exports it packed.",
               "train_cifar10");
  app.option_defaults()->always_capture_default();
  app.footer(
      "What to expect: 20 epochs reach 80 % on CIFAR-10 and 99.7 % on the drawn images (51 % after one epoch "
      "on all\n"
      "10,000 of them; an epoch on 4,000 is 32 steps and stays at chance, 10 %).");
  add_options(app, options, texts);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  options.dataset = apps::dataset_from_name(texts.dataset);
  options.linear = kLinearKinds.at(texts.linear);
  options.schedule = kSchedules.at(texts.schedule);
  options.precision = kPrecisions.at(texts.precision);
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() > 0) options.given.insert(option->get_lnames().front());
  }
  return options;
}

nlohmann::json to_json(const TrainOptions& options) {
  return {{"dataset", apps::name_of(options.dataset)},
          {"train-images", options.train_images},
          {"linear", name_of(options.linear)},
          {"epochs", options.epochs},
          {"batch-size", options.batch_size},
          {"lr", options.learning_rate},
          {"conv-lr-factor", options.convolution_factor},
          {"weight-decay", options.weight_decay},
          {"clip", options.clip},
          {"label-smoothing", options.label_smoothing},
          {"warmup-epochs", options.warmup_epochs},
          {"schedule", name_of(options.schedule)},
          {"seed", options.seed},
          {"precision", name_of(options.precision)}};
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
  options.dataset = apps::dataset_from_name(recorded.at("dataset").get<std::string>());
  options.train_images = recorded.at("train-images");
  options.linear = kLinearKinds.at(recorded.at("linear"));
  options.epochs = epochs;
  options.batch_size = recorded.at("batch-size");
  options.learning_rate = recorded.at("lr");
  options.convolution_factor = recorded.at("conv-lr-factor");
  options.weight_decay = recorded.at("weight-decay");
  options.clip = recorded.at("clip");
  options.label_smoothing = recorded.at("label-smoothing");
  options.warmup_epochs = recorded.at("warmup-epochs");
  options.schedule = kSchedules.at(recorded.at("schedule"));
  options.seed = recorded.at("seed");
  options.precision = kPrecisions.at(recorded.at("precision"));
  return options;
}

}  // namespace trit::train

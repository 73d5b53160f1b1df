// SPDX-License-Identifier: MIT
//
// trit eval: accuracy and speed of a model on the test images of a data set.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common/datasets.h"
#include "common/number_options.h"
#include "common/path_option.h"
#include "common/progress.h"
#include "output.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::cli {
namespace {

using apps::ImageDataset;
using Clock = std::chrono::steady_clock;

struct EvalOptions {
  std::string model, data, dataset, predictions;
  ModelOptions runtime;
  std::int64_t batch = 0;  // 0: by the backend
  std::int64_t limit = 0;  // 0: all
  bool json = false;
};

constexpr std::int64_t kBatchOnCpu = 128;
constexpr std::int64_t kBatchOnGpu = 1000;
/// Batches that a GPU gets at a time: one is copied while another is computed.
constexpr std::int64_t kBatchesPerRun = 16;

struct EvalResult {
  std::vector<int> predictions;  // -1 where an output is NaN
  std::int64_t correct = 0;
  std::int64_t not_finite = 0;  // images with a NaN or an infinity among their outputs
  double run_seconds = 0;       // of Model::run alone
  double total_seconds = 0;     // with normalisation and the comparison with the labels
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// --dataset, else the one whose classes the model names, else CIFAR-10.
apps::DatasetName choose_dataset(const EvalOptions& options, const ModelInput& input) {
  if (!options.dataset.empty()) {
    return apps::dataset_from_name(options.dataset);
  }
  for (const auto name :
       {apps::DatasetName::cifar10, apps::DatasetName::fashion_mnist, apps::DatasetName::drawn}) {
    if (std::ranges::equal(apps::class_names(name), input.classes)) {
      return name;
    }
  }
  return apps::DatasetName::cifar10;
}

void check_shapes(const Model& model, const EvalOptions& options) {
  const std::vector<std::int64_t> image{ImageDataset::kChannels, ImageDataset::kHeight, ImageDataset::kWidth};
  if (model.input().shape != image) {
    throw Error(fmt::format("{}: its input is {}, the images of the data sets are {}", options.model,
                            shape_text(model.input().shape), shape_text(image)));
  }
  if (model.output_shape() != std::vector<std::int64_t>{10}) {
    throw Error(fmt::format("{}: its output is {}, the data sets have [10] classes", options.model,
                            shape_text(model.output_shape())));
  }
}

// The mean and std of the model take precedence over the data set's.
void take_normalisation(const ModelInput& input, ImageDataset& images) {
  if (input.mean.size() == images.mean.size() && input.std.size() == images.std.size()) {
    std::ranges::copy(input.mean, images.mean.begin());
    std::ranges::copy(input.std, images.std.begin());
  }
}

// The first of the largest outputs; -1, no class, if one is NaN.
int predicted_class(std::span<const float> outputs) {
  if (std::ranges::any_of(outputs, [](float v) { return std::isnan(v); })) {
    return -1;
  }
  return static_cast<int>(std::ranges::max_element(outputs) - outputs.begin());
}

void count(const ImageDataset& images, std::span<const float> y, EvalResult& result) {
  for (std::size_t i = 0; i < y.size() / 10; ++i) {
    const auto outputs = y.subspan(10 * i, 10);
    const int predicted = predicted_class(outputs);
    result.correct += predicted == images.labels[result.predictions.size()] ? 1 : 0;
    result.not_finite += std::ranges::all_of(outputs, [](float v) { return std::isfinite(v); }) ? 0 : 1;
    result.predictions.push_back(predicted);
  }
}

/// Runs the model on images. A CPU gets floats, normalised into `x_`.
class Runner {
 public:
  Runner(const Model& model, const ImageDataset& images, std::int64_t max_images)
      : model_(model), images_(images), on_gpu_(model.backend() == Backend::cuda) {
    x_.resize(on_gpu_ ? 0 : static_cast<std::size_t>(max_images * ImageDataset::kImageBytes));
  }

  /// Runs `count` images from `first` on. Returns the seconds in the model, on a GPU with normalisation.
  double run(std::int64_t first, std::int64_t count, std::span<float> y) {
    const auto values = static_cast<std::size_t>(count * ImageDataset::kImageBytes);
    const std::span<float> x = std::span(x_).first(on_gpu_ ? 0 : values);
    if (!on_gpu_) {
      apps::normalize(images_, first, count, x);
    }
    const auto start = Clock::now();
    if (on_gpu_) {
      const auto pixels = std::span<const std::uint8_t>(images_.pixels)
                              .subspan(static_cast<std::size_t>(first * ImageDataset::kImageBytes), values);
      model_.run_images(pixels, images_.mean, images_.std, count, y);
    } else {
      model_.run(x, count, y);
    }
    return seconds_since(start);
  }

 private:
  const Model& model_;
  const ImageDataset& images_;
  bool on_gpu_;
  std::vector<float> x_;
};

/// Images stay bytes; one batch is normalised at a time.
EvalResult evaluate(const Model& model, const ImageDataset& images, std::int64_t total, std::int64_t batch) {
  batch = std::min(batch, total);
  Runner runner(model, images, batch);
  std::vector<float> y(static_cast<std::size_t>(batch * 10));
  runner.run(0, batch, y);  // untimed: the first run of a shape builds its plan
  EvalResult result;
  apps::Progress progress("eval", total, "images");
  const auto start = Clock::now();
  for (std::int64_t first = 0; first < total; first += batch) {
    check_interrupted();
    const std::int64_t now = std::min(batch, total - first);
    const std::span<float> outputs = std::span(y).first(static_cast<std::size_t>(now * 10));
    result.run_seconds += runner.run(first, now, outputs);
    count(images, outputs, result);
    progress.update(first + now);
  }
  result.total_seconds = seconds_since(start);
  return result;
}

void save_predictions(const std::string& path, const EvalResult& result) {
  std::string text;
  for (const int predicted : result.predictions) {
    text += std::to_string(predicted) + "\n";
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  io::write_file_atomically(path, std::span(&bytes, 1));
}

void report(const EvalOptions& options, const Model& model, const ImageDataset& images,
            const EvalResult& result) {
  const auto total = static_cast<double>(result.predictions.size());
  const double accuracy = 100.0 * static_cast<double>(result.correct) / total;
  const std::string backend(name_of(model.backend()));
  say(fmt::format("{}: {:.2f} % of {} {} test images correct", options.model, accuracy,
                  result.predictions.size(), name_of(images.name)));
  say(fmt::format(
      "{:.0f} images/s in the model ({:.0f} with normalisation), batch {}, backend {}, dense layers {}, "
      "{} {}",
      total / result.run_seconds, total / result.total_seconds, options.batch, backend, model.dense_library(),
      model.threads(), model.threads() == 1 ? "thread" : "threads"));
  const ModelMemory memory = model.memory();
  if (!memory.device.empty()) {
    say(fmt::format("{}: {} bytes of weights, {} of activations", memory.device, memory.weight_bytes,
                    memory.working_bytes));
  }
  if (result.not_finite != 0) {
    say(fmt::format("warning: {} images have a NaN or an infinity among their outputs", result.not_finite));
  }
  if (!options.json) {
    return;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  nlohmann::ordered_json object{{"model", options.model},
                                {"dataset", name_of(images.name)},
                                {"split", "test"},
                                {"images", result.predictions.size()},
                                {"correct", result.correct},
                                {"accuracy", accuracy},
                                {"not_finite", result.not_finite},
                                {"images_per_second", total / result.run_seconds},
                                {"images_per_second_with_preprocessing", total / result.total_seconds},
                                {"seconds", result.run_seconds},
                                {"seconds_with_preprocessing", result.total_seconds},
                                {"batch", options.batch},
                                {"backend", backend},
                                {"threads", model.threads()},
                                {"dense_library", model.dense_library()},
                                {"image_bytes", images.pixels.size()},
                                {"peak_resident_bytes", usage.ru_maxrss * 1024}};
  if (!memory.device.empty()) {
    object["device"] = memory.device;
    object["device_weight_bytes"] = memory.weight_bytes;
    object["device_working_bytes"] = memory.working_bytes;
  }
  print_json(object);
}

int eval(EvalOptions options) {
  apps::install_interrupt_handler();
  if (options.json) {
    check_standard_output();
  }
  if (!options.predictions.empty()) {
    io::check_output(options.predictions);
  }
  check_is_model(options.model);
  const bool on_gpu = requested_backend(options.runtime.backend) == Backend::cuda;
  if (options.batch == 0) {
    options.batch = on_gpu ? kBatchOnGpu : kBatchOnCpu;
  }
  options.runtime.images_per_launch = options.batch;
  const Model model = Model::load(options.model, options.runtime);
  check_shapes(model, options);
  const apps::DatasetName name = choose_dataset(options, model.input());
  if (!model.input().classes.empty() && !std::ranges::equal(apps::class_names(name), model.input().classes)) {
    say(fmt::format("warning: the classes of {} are not those of {}", options.model, apps::name_of(name)));
  }
  ImageDataset images = apps::load_dataset(
      name, apps::Split::test, options.data.empty() ? apps::default_folder(name).string() : options.data);
  take_normalisation(model.input(), images);
  const std::int64_t total = options.limit == 0 ? images.count() : std::min(options.limit, images.count());
  const EvalResult result =
      evaluate(model, images, total, on_gpu ? kBatchesPerRun * options.batch : options.batch);
  if (!options.predictions.empty()) {
    save_predictions(options.predictions, result);
  }
  report(options, model, images, result);
  return kDone;
}

}  // namespace

void add_eval_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "accuracy and images/s of a model on test images");
  add_required_path(*command, "model", options->model, "model file");
  command
      ->add_option("--data", options->data,
                   "folder with the data set's files; if not given, TRIT_CIFAR10 or the cache folder")
      ->type_name("FOLDER")
      ->check(apps::path_check());
  command
      ->add_option("--dataset", options->dataset,
                   "test images; if not given, those whose classes the model names, otherwise cifar10")
      ->type_name("NAME")
      ->check(CLI::IsMember({"cifar10", "fashion-mnist", "drawn"}));
  add_backend_option(*command, options->runtime.backend);
  add_threads_option(*command, options->runtime.threads);
  command->add_option("--batch", options->batch, "images per run")
      ->type_name("N")
      ->default_str("128, on a GPU 1000")
      ->check(apps::whole_number(1, 65536));
  command->add_option("--limit", options->limit, "evaluate only the first N images")
      ->type_name("N")
      ->check(apps::whole_number(1));
  command
      ->add_option("--predictions", options->predictions,
                   "file to write the predicted classes to, one per line")
      ->type_name("FILE")
      ->check(apps::path_check());
  add_json_option(*command, options->json);
  command->footer(
      "images_per_second counts the time in the model only; images_per_second_with_preprocessing adds\n"
      "normalising the images and comparing with the labels. One run before the clock starts is not\n"
      "counted. A GPU normalises the images itself, within the time in the model, and gets 16 batches\n"
      "at a time. An image with a NaN among its outputs gets class -1 and counts as wrong.\n"
      "On a CPU with AMX, TRIT_DENSE=onednn-bf16-pairs splits each float32 into two bf16 numbers:\n"
      "convolutions are up to 4 times faster, and 1 of 20,000 predictions may differ from other\n"
      "machines.\n\n"
      "Example: trit eval runs/cifar10/model.safetensors --data ~/.cache/trit/cifar10 --json");
  command->callback([options, &action] { action = [options] { return eval(*options); }; });
}

}  // namespace trit::cli

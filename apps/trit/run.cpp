// SPDX-License-Identifier: MIT
//
// trit run: tensor "x" of one safetensors file in, tensor "y" of another out.
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common/progress.h"
#include "output.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::cli {
namespace {

// Rows per run: limits the memory for activations, whatever the size of x.
constexpr std::int64_t kRowsPerRun = 128;
/// A GPU splits them itself.
constexpr std::int64_t kRowsPerRunOnGpu = 8192;

struct RunOptions {
  std::string model, input, output;
  ModelOptions runtime;
  bool json = false;
};

std::int64_t product(std::span<const std::int64_t> shape) {
  std::int64_t numel = 1;
  for (const std::int64_t size : shape) {
    numel *= size;
  }
  return numel;
}

std::string batch_of(std::span<const std::int64_t> shape) {
  std::string text = "[batch";
  for (const std::int64_t size : shape) {
    text += ", " + std::to_string(size);
  }
  return text + "]";
}

/// "x" of the input file, checked against the model.
const io::TensorView& find_input(const io::SafetensorsFile& file, const Model& model) {
  const std::string path = file.path().string();
  if (!file.contains("x")) {
    std::string names;
    for (const auto& [name, tensor] : file.tensors()) {
      names += (names.empty() ? "" : ", ") + printable(name);
    }
    throw Error(fmt::format("{}: has no tensor \"x\" (it has: {})", path, names.empty() ? "nothing" : names));
  }
  const io::TensorView& x = file.at("x");
  const auto& wanted = model.input().shape;
  if (x.shape.size() != wanted.size() + 1 || !std::equal(wanted.begin(), wanted.end(), x.shape.begin() + 1)) {
    throw Error(
        fmt::format("{}: tensor \"x\" has shape {}, wanted {}", path, shape_text(x.shape), batch_of(wanted)));
  }
  if (x.dtype != "F32" && x.dtype != "F16" && x.dtype != "BF16") {
    throw Error(fmt::format("{}: tensor \"x\" is {}, wanted F32, F16 or BF16", path, x.dtype));
  }
  return x;
}

/// F32, F16 or BF16 as float32; the data of a file need not be aligned.
std::vector<float> to_floats(const io::TensorView& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  if (values.empty()) {
    return values;  // memcpy takes no null pointer
  }
  if (tensor.dtype == "F32") {
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + i * sizeof(bits), sizeof(bits));
    values[i] = tensor.dtype == "F16" ? float16_to_float(bits) : bfloat16_to_float(bits);
  }
  return values;
}

int run(const RunOptions& options) {
  apps::install_interrupt_handler();
  if (options.json) {
    check_standard_output();
  }
  io::check_output(options.output);
  check_is_model(options.model);
  const Model model = Model::load(options.model, options.runtime);
  const io::SafetensorsFile file = io::SafetensorsFile::open(options.input);
  const io::TensorView& input = find_input(file, model);
  const std::int64_t batch = input.shape[0];
  const std::int64_t inputs = product(model.input().shape);
  const std::int64_t outputs = product(model.output_shape());
  const std::vector<float> x = to_floats(input);
  std::vector<float> y(static_cast<std::size_t>(batch * outputs));

  const std::int64_t rows_per_run = model.backend() == Backend::cuda ? kRowsPerRunOnGpu : kRowsPerRun;
  apps::Progress progress("run", batch, "rows");
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t first = 0; first < batch; first += rows_per_run) {
    check_interrupted();
    const std::int64_t rows = std::min(rows_per_run, batch - first);
    model.run(std::span(x).subspan(static_cast<std::size_t>(first * inputs),
                                   static_cast<std::size_t>(rows * inputs)),
              rows,
              std::span(y).subspan(static_cast<std::size_t>(first * outputs),
                                   static_cast<std::size_t>(rows * outputs)));
    progress.update(first + rows);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  progress.clear();

  std::vector<std::int64_t> shape{batch};
  shape.insert(shape.end(), model.output_shape().begin(), model.output_shape().end());
  const io::TensorToWrite tensor{"y", "F32", shape, std::as_bytes(std::span(y))};
  io::save_safetensors(options.output, std::span(&tensor, 1), {});
  say(fmt::format("{}: y {} in {:.3f} s, backend {}, dense layers {}, threads {}", options.output,
                  shape_text(shape), seconds, name_of(model.backend()), model.dense_library(),
                  model.threads()));
  if (options.json) {
    print_json({{"model", options.model},
                {"input", options.input},
                {"output", options.output},
                {"shape", shape},
                {"seconds", seconds},
                {"backend", name_of(model.backend())},
                {"threads", model.threads()},
                {"dense_library", model.dense_library()}});
  }
  return kDone;
}

}  // namespace

void add_run_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* command =
      app.add_subcommand("run", "run a model on tensor \"x\" of a file and write \"y\" to another");
  add_required_path(*command, "model", options->model, "model file");
  add_required_path(*command, "--input", options->input,
                    "safetensors file with \"x\" [batch, the model's input]: F32, F16 or BF16");
  add_required_path(*command, "--output", options->output,
                    "safetensors file to write, with \"y\" [batch, output]: F32");
  add_backend_option(*command, options->runtime.backend);
  add_threads_option(*command, options->runtime.threads);
  add_json_option(*command, options->json);
  command->footer(
      "The output file is written completely or not at all.\n\n"
      "Example: trit run model.safetensors --input x.safetensors --output y.safetensors");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace trit::cli

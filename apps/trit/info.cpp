// SPDX-License-Identifier: MIT
//
// trit info: what a file contains. Works for whole models, packed matrices, any safetensors file, and the
// files of other projects (docs/formats.md).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint_table.h"
#include "command.h"
#include "layer_table.h"
#include "output.h"
#include "trit/io.h"
#include "trit/model.h"

namespace trit::cli {
namespace {

struct InfoOptions {
  std::string model, input_type;
  std::optional<io::ScaleConvention> convention;
  Backend backend = Backend::scalar;
  bool codes = false;
  bool json = false;
};

std::string metadata(const io::SafetensorsFile& file, std::string_view key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

/// False for a float file with a network, which "trit pack" can pack. Two keys: a damaged file may lack one.
bool is_stored_form(const io::SafetensorsFile& file) {
  return file.metadata().contains("trit.layout") || file.metadata().contains("trit.version");
}

void print_table(const io::SafetensorsFile& file, const Model* model, std::uint64_t bytes,
                 const std::vector<LayerRow>& rows) {
  std::string text = fmt::format("{}: {} bytes, ", file.path().string(), grouped(bytes));
  if (file.metadata().contains("trit.layout")) {
    const std::string group = metadata(file, "trit.group");
    text += fmt::format("trit version {}, layout {}{}{}\n", printable(metadata(file, "trit.version")),
                        printable(metadata(file, "trit.layout")), group.empty() ? "" : ", groups of ",
                        printable(group));
    if (const auto rotation = io::rotation_of(file.metadata(), file.path().string())) {
      text += fmt::format("{} matrices with rotated weights (prism.hadamard, blocks of {})\n",
                          rotation->weights.size() + rotation->look_ups.size(), rotation->block);
    }
  } else {
    text += fmt::format("safetensors, {} tensors\n", file.tensors().size());
    if (!is_stored_form(file) && file.metadata().contains("trit.model")) {
      text += "a network (trit.model) that runs once \"trit pack\" has packed its weights\n";
    }
  }
  if (model != nullptr) {
    text += fmt::format("input {}, output {}\n", shape_text(model->input().shape),
                        shape_text(model->output_shape()));
    if (!model->input().classes.empty()) {
      text +=
          fmt::format("classes {}\n", printable(fmt::format("{}", fmt::join(model->input().classes, ", "))));
    }
  }
  text += "\n" + table_of(rows);
  if (model != nullptr && !model->memory().device.empty()) {
    text += fmt::format("\n{}: {} bytes of weights in its memory, dense layers {}\n", model->memory().device,
                        grouped(model->memory().weight_bytes), model->dense_library());
  } else if (model != nullptr && model->backend() != Backend::scalar) {
    text += fmt::format("\nbackend {}: ternary weights as {} panels, dense layers {}\n",
                        name_of(model->backend()), name_of(model->layout()), model->dense_library());
  }
  print(text);
}

void print_object(const io::SafetensorsFile& file, const Model* model, std::uint64_t bytes,
                  const std::vector<LayerRow>& rows) {
  nlohmann::ordered_json object{{"file", file.path().string()}, {"file_bytes", bytes}};
  if (file.metadata().contains("trit.layout")) {
    object["format"] = {{"version", metadata(file, "trit.version")},
                        {"layout", metadata(file, "trit.layout")},
                        {"scale", metadata(file, "trit.scale")}};
    if (file.metadata().contains("trit.group")) {
      object["format"]["group"] = metadata(file, "trit.group");
    }
  }
  if (model != nullptr) {
    object["input"] = {{"shape", model->input().shape},
                       {"mean", model->input().mean},
                       {"std", model->input().std},
                       {"classes", model->input().classes}};
    object["output"] = {{"shape", model->output_shape()}};
    if (const ModelMemory memory = model->memory(); !memory.device.empty()) {
      object["device"] = {{"name", memory.device},
                          {"weight_bytes", memory.weight_bytes},
                          {"dense_library", model->dense_library()}};
    } else if (model->backend() != Backend::scalar) {
      object["loaded"] = {{"backend", name_of(model->backend())},
                          {"layout", name_of(model->layout())},
                          {"dense_library", model->dense_library()}};
    }
  }
  object["layers"] = json_of(rows);
  std::uint64_t stored = 0;
  std::uint64_t as_float = 0;
  for (const LayerRow& row : rows) {
    stored += row.stored_bytes;
    as_float += row.float_bytes;
  }
  object["stored_bytes"] = stored;
  object["float_bytes"] = as_float;
  auto& tensors = object["tensors"] = nlohmann::ordered_json::array();
  for (const auto& [name, tensor] : file.tensors()) {
    tensors.push_back({{"name", name},
                       {"dtype", tensor.dtype},
                       {"shape", tensor.shape},
                       {"bytes", tensor.data.size()},
                       {"offset", tensor.offset}});
  }
  print_json(object);
}

/// Of a file that is read whole: all of it is checked.
std::vector<LayerRow> rows_of(const io::SafetensorsFile& file, const Model* model, bool with_codes) {
  if (!file.metadata().contains("trit.layout")) {
    io::verify_checksum(file);
    return describe(file);
  }
  const auto checkpoint = io::open_checkpoint(file.path());
  if (model != nullptr) {
    return describe(*model, *checkpoint, with_codes);
  }
  io::verify_checksum(file);
  std::vector<LayerRow> rows = describe(*checkpoint, true);
  for (LayerRow& row : rows) {
    row.type = row.codes ? "ternary" : row.type;
    row.codes = with_codes ? row.codes : std::nullopt;
  }
  return rows;
}

/// A file of another project, or a large one: only its headers are read, unless --codes is given.
int info_of_checkpoint(const InfoOptions& options) {
  const auto checkpoint = io::open_checkpoint(
      options.model,
      {.scale_convention = options.convention, .config_wins = true, .block_format = options.input_type});
  const std::vector<LayerRow> rows = describe(*checkpoint, options.codes);
  if (options.json) {
    print_json({{"file", options.model},
                {"format", std::string(io::name_of(checkpoint->format()))},
                {"description", checkpoint->description()},
                {"layers", json_of(rows)}});
  } else {
    print(fmt::format("{}: {}\n\n{}", options.model, printable(checkpoint->description()), table_of(rows)));
  }
  return kDone;
}

int info(const InfoOptions& options) {
  check_standard_output();
  const io::Format format = io::detect_format(options.model);
  // A file up to this size is read whole, which takes milliseconds, and everything in it is checked.
  constexpr std::uint64_t kLargestReadWhole = 16'000'000;
  const bool own = format == io::Format::trit || format == io::Format::safetensors;
  if (!own || (!options.codes && options.backend == Backend::scalar &&
               std::filesystem::file_size(options.model) > kLargestReadWhole)) {
    return info_of_checkpoint(options);
  }
  const io::SafetensorsFile file = io::SafetensorsFile::open(options.model);
  std::optional<Model> model;
  if (is_stored_form(file) && file.metadata().contains("trit.model")) {
    // Loading checks everything. The default is the scalar backend: what a file contains does not depend on
    // the machine.
    model = Model::load(options.model, {.backend = options.backend, .threads = 1});
  }
  const Model* graph = model ? &*model : nullptr;
  const std::vector<LayerRow> rows = rows_of(file, graph, options.codes);
  const std::uint64_t bytes = std::filesystem::file_size(options.model);
  if (options.json) {
    print_object(file, graph, bytes, rows);
  } else {
    print_table(file, graph, bytes, rows);
  }
  return kDone;
}

}  // namespace

void add_info_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "layers, shapes, bytes and scales of a file");
  add_required_path(*command, "model", options->model,
                    "model file, GGUF, any safetensors file, or a folder of transformers");
  command->add_flag("--codes", options->codes, "add the shares of weights that are -1, 0 and +1");
  add_scale_convention_option(
      *command, options->convention,
      "what weight_scale does in packed layers of transformers, if no config.json says so");
  add_input_type_option(*command, options->input_type);
  add_backend_option(*command, options->backend)->default_str("scalar");
  add_json_option(*command, options->json);
  command->footer(
      "\"bytes\" counts all tensors of a layer (weight, scale, norm, bias); \"bits/weight\" only its\n"
      "weight and scale. With --backend the model is loaded for that backend, and the layout of its\n"
      "ternary weights and the library of its dense layers are shown; with cuda also the bytes in GPU\n"
      "memory. Only the headers are read of files above 16 MB and of other projects' files, unless\n"
      "--codes is given.\n\n"
      "Example: trit info model.safetensors --codes");
  command->callback([options, &action] { action = [options] { return info(*options); }; });
}

}  // namespace trit::cli

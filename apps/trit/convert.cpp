// SPDX-License-Identifier: MIT
//
// trit convert: a model from one file format to another (docs/formats.md).
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common/number_options.h"
#include "common/progress.h"
#include "output.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::cli {
namespace {

struct ConvertArguments {
  std::string input, output, to, type, map, config, architecture, input_type;
  std::optional<io::ScaleConvention> convention;
  std::uint64_t shard_bytes = 0;
  bool unpacked = false;
  std::int64_t group = 0;
  bool json = false;
};

std::string text_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream) {
    throw Error(path + ": cannot be read");
  }
  return text;
}

/// Of a file, or of the files of a folder.
std::uint64_t bytes_of(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return std::filesystem::file_size(path);
  }
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    bytes += entry.is_regular_file() ? entry.file_size() : 0;
  }
  return bytes;
}

io::ConvertOptions options_of(const ConvertArguments& arguments) {
  io::ConvertOptions options;
  options.to = arguments.to == "gguf"          ? io::Format::gguf
               : arguments.to == "hf"          ? io::Format::huggingface
               : arguments.to == "safetensors" ? io::Format::safetensors
                                               : io::Format::trit;
  options.block_format = arguments.type;
  options.scale_convention = arguments.convention;
  options.shard_bytes = arguments.shard_bytes;
  options.architecture = arguments.architecture;
  if (!arguments.map.empty()) {
    options.names = io::NameMap::load(arguments.map);
  }
  if (!arguments.config.empty()) {
    options.base_config = text_of(arguments.config);
  }
  return options;
}

void report(const ConvertArguments& arguments, const io::Checkpoint& source, const io::Converted& written,
            double seconds) {
  const std::uint64_t before = source.file_bytes();
  const std::uint64_t after = bytes_of(arguments.output);
  say(fmt::format("{}: {} tensors, {} of them ternary; {} bytes from {}, {:.2f} s, {:.0f} MB/s of input",
                  arguments.output, written.tensors, written.ternary, grouped(after), grouped(before),
                  seconds, static_cast<double>(before) / 1e6 / seconds));
  if (arguments.json) {
    print_json({{"input", arguments.input},
                {"input_format", std::string(io::name_of(source.format()))},
                {"output", arguments.output},
                {"output_format", arguments.to},
                {"tensors", written.tensors},
                {"ternary", written.ternary},
                {"input_bytes", before},
                {"output_bytes", after},
                {"seconds", seconds}});
  }
}

int convert(const ConvertArguments& arguments) {
  apps::install_interrupt_handler();
  if (arguments.json) {
    check_standard_output();
  }
  const auto start = std::chrono::steady_clock::now();
  io::ConvertOptions options = options_of(arguments);
  // With --to hf the convention is that of the output; the config.json of the input may name another.
  const auto opened =
      io::open_checkpoint(arguments.input, {.scale_convention = arguments.convention,
                                            .config_wins = options.to == io::Format::huggingface,
                                            .block_format = arguments.input_type});
  const auto values = arguments.unpacked ? io::ternary_values(*opened, arguments.group) : nullptr;
  const io::Checkpoint* const source = values ? values.get() : opened.get();
  if (const auto graph = source->metadata().find("trit.model"); graph != source->metadata().end()) {
    check_graph(graph->second, arguments.input);
  }
  options.progress = byte_progress("convert");
  options.warn = [](const std::string& text) { say("warning: " + text); };
  const io::Converted written = io::convert(*source, arguments.output, options);
  options.progress = nullptr;
  report(arguments, *opened, written,
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return kDone;
}

}  // namespace

void add_convert_command(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* command = app.add_subcommand("convert", "convert a model from one file format to another");
  add_required_path(*command, "input", arguments->input,
                    "model file, GGUF, safetensors file or folder of transformers");
  add_required_path(*command, "output", arguments->output, "file to write; with --to hf, a new folder");
  command->add_option("--to", arguments->to, "format of the output")
      ->required()
      ->type_name("NAME")
      ->check(CLI::IsMember({"trit", "hf", "gguf", "safetensors"}));
  command
      ->add_option(
          "--type", arguments->type,
          "--to gguf: type of the ternary matrices; an error if the input has none. If not given: tq2_0, or "
          "with group scales pq2_0 for groups of 128 and q2_0 for smaller ones")
      ->type_name("NAME")
      ->check(CLI::IsMember({"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"}));
  add_input_type_option(*command, arguments->input_type);
  CLI::Option* const unpacked = command->add_flag(
      "--unpacked", arguments->unpacked,
      "the float matrices of the input hold ternary values, -a, 0 and a in each group of "
      "inputs: read them as ternary ones; an error for a linear layer whose values are not");
  command
      ->add_option("--group", arguments->group,
                   "--unpacked: inputs of a group, a multiple of 32; if not given, the largest of 32, 64, "
                   "128, ... that fits")
      ->type_name("N")
      ->needs(unpacked)
      ->check(apps::whole_number(32, 65536));
  add_scale_convention_option(
      *command, arguments->convention,
      "what weight_scale does in packed layers of transformers: in the input, if no config.json says so, and "
      "in the output with --to hf; if not given, as in the config.json of the model, otherwise multiply");
  command
      ->add_option(
          "--map", arguments->map,
          "new names of tensors: a JSON object of regular expressions and their replacements, null to "
          "drop a tensor")
      ->type_name("FILE")
      ->check(CLI::Validator(CLI::ExistingFile).description(""));
  command
      ->add_option("--config", arguments->config, "--to hf: config.json to start from, if the input has none")
      ->type_name("FILE")
      ->check(CLI::Validator(CLI::ExistingFile).description(""));
  command
      ->add_option("--architecture", arguments->architecture, "--to gguf: the value of general.architecture")
      ->type_name("NAME");
  command
      ->add_option("--shard-size", arguments->shard_bytes,
                   "--to hf: maximum size of a weight file; if not given, all weights go into one")
      ->type_name("SIZE")
      ->transform(apps::byte_size());
  add_json_option(*command, arguments->json);
  command->footer(
      "Codes are copied unchanged. A tensor that the format cannot store is an error that names it. GGUF\n"
      "rounds scales to float16. --to safetensors writes ternary matrices as floats, code times scale.\n\n"
      "Example: trit convert bitnet-b1.58-2B-4T/ model.gguf --to gguf --type tq1_0");
  command->callback([arguments, &action] { action = [arguments] { return convert(*arguments); }; });
}

}  // namespace trit::cli

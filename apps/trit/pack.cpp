// SPDX-License-Identifier: MIT
//
// trit pack: converts the float matrices of a model to the stored form (docs/format.md) and copies the rest.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "command.h"
#include "common/progress.h"
#include "common/scale_option.h"
#include "output.h"
#include "pack_plan.h"
#include "packed_model.h"
#include "trit/io.h"

namespace trit::cli {
namespace {

struct PackOptions {
  std::string input, output, filter, scale = "tensor";
  std::optional<io::ScaleConvention> convention;
  bool json = false;
};

void report(const PackOptions& options, const io::Checkpoint& source, const PackPlan& plan, double seconds) {
  const std::uint64_t before = source.file_bytes();
  const std::uint64_t after = std::filesystem::file_size(options.output);
  say(fmt::format("{}: {} of {} tensors packed (scale per {}), {} bytes from {}, {:.2f} s", options.output,
                  plan.packed.size(), source.tensors().size(), options.scale, grouped(after), grouped(before),
                  seconds));
  if (const std::string left = left_float_text(plan.left_float, "left float: "); !left.empty()) {
    say(left + (options.filter.empty() ? "; --filter can select them" : ""));
  }
  if (!plan.config_problem.empty()) {
    say("not used: " + printable(plan.config_problem));
  }
  if (!plan.trained_ternary) {
    say("These weights show no sign of training with ternary layers (BitNet): packing a model that was "
        "trained in float costs most of its accuracy.");
  }
  if (!options.json) {
    return;
  }
  nlohmann::ordered_json packed = nlohmann::ordered_json::array();
  for (const std::string& name : plan.packed) {
    packed.push_back({{"name", name}, {"shape", source.find(name)->shape}});
  }
  nlohmann::ordered_json left = nlohmann::ordered_json::array();
  for (const LeftFloat& tensor : plan.left_float) {
    left.push_back({{"name", tensor.name}, {"why", tensor.why}});
  }
  print_json({{"input", options.input},
              {"output", options.output},
              {"scale", options.scale},
              {"packed", packed},
              {"left_float", left},
              {"copied", source.tensors().size() - plan.packed.size() - plan.converted.size()},
              {"converted", plan.converted},
              {"input_bytes", before},
              {"output_bytes", after},
              {"seconds", seconds}});
}

/// What is wrong with `text`; empty if it is a regular expression.
std::string refuse_expression(const std::string& text) {
  try {
    static_cast<void>(std::regex(text));
    return "";
  } catch (const std::regex_error& error) {
    return "'" + text + "' is not a regular expression: " + error.what();
  }
}

int pack(const PackOptions& options) {
  apps::install_interrupt_handler();
  if (options.json) {
    check_standard_output();
  }
  const auto start = std::chrono::steady_clock::now();
  // Stays mapped until the end: the output may replace the input, whose bytes remain readable until then.
  const auto source =
      io::open_checkpoint(options.input, {.scale_convention = options.convention, .config_wins = true});
  const PackPlan plan =
      plan_pack(*source, options.filter.empty() ? std::nullopt : std::optional<std::string>(options.filter));
  constexpr std::uint64_t kMegabyte = 1'000'000;
  std::optional<apps::Progress> progress;
  std::uint64_t done = 0;
  const PackedModel packed(*source, plan, apps::scales_of(options.scale).value_or(apps::Scales{}),
                           [&](std::uint64_t bytes) {
                             check_interrupted();
                             done += bytes;
                             progress->update(static_cast<std::int64_t>(done / kMegabyte));
                           });
  if (plan.metadata.contains("trit.model")) {
    check_model(packed);
  }
  progress.emplace("pack", static_cast<std::int64_t>(packed.bytes_to_read() / kMegabyte), "MB");
  io::convert(packed, options.output, {});
  progress.reset();
  report(options, *source, plan,
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return kDone;
}

}  // namespace

void add_pack_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<PackOptions>();
  CLI::App* command = app.add_subcommand("pack", "pack the float matrices of a model to 2 bits per weight");
  add_required_path(*command, "input", options->input,
                    "safetensors file, GGUF or folder of transformers, with float matrices");
  add_required_path(*command, "output", options->output, "file to write; may be the input itself");
  command
      ->add_option(
          "--filter", options->filter,
          "pack the 2-D float tensors whose names contain a match of this regular expression; if not given, "
          "the weights of linear layers")
      ->check(CLI::Validator(refuse_expression, "", "regular expression"))
      ->type_name("REGEX");
  command
      ->add_option(
          "--scale", options->scale,
          "one scale per matrix (tensor), per output row (row), or per group of G inputs of a row, G a "
          "multiple of 32 (group:G)")
      ->type_name("NAME")
      ->capture_default_str()
      ->check(apps::scales_text());
  add_scale_convention_option(*command, options->convention,
                              "what weight_scale does in layers of transformers that are already packed, "
                              "if no config.json says so");
  add_json_option(*command, options->json);
  command->footer(
      "F32, F16, BF16 and F64 matrices of linear layers are packed; other tensors and the metadata are\n"
      "copied. Embeddings, the output layer of a language model (lm_head) and the modules that\n"
      "modules_to_not_convert in config.json lists stay float unless --filter selects them; the tensors\n"
      "that stay float are printed. In a model file the graph says which layers are linear, and a packed\n"
      "one becomes ternary. A NaN or an infinity is an error. The output file is written completely or\n"
      "not at all. Packing a model that was not trained with ternary layers costs most of its accuracy.\n\n"
      "Example: trit pack in.safetensors out.safetensors --filter 'proj\\.weight$' --scale row");
  command->callback([options, &action] { action = [options] { return pack(*options); }; });
}

}  // namespace trit::cli

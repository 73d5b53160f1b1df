// SPDX-License-Identifier: MIT
//
// trit diff: the tensors of two models that differ in codes, scales or elements. Exit codes as for diff(1).
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common/number_options.h"
#include "common/progress.h"
#include "output.h"
#include "trit/io.h"

namespace trit::cli {
namespace {

constexpr int kEqual = 0;
constexpr int kDifferent = 1;
constexpr int kTrouble = 2;

struct DiffArguments {
  std::string first, second, input_type;
  double tolerance = 0;
  std::optional<io::ScaleConvention> convention;
  bool json = false;
};

struct Compared {
  std::vector<io::Difference> differences;
  std::size_t tensors = 0;  // of the first
};

Compared compare(const DiffArguments& arguments) {
  const io::OpenOptions open{
      .scale_convention = arguments.convention, .config_wins = true, .block_format = arguments.input_type};
  const auto first = io::open_checkpoint(arguments.first, open);
  const auto second = io::open_checkpoint(arguments.second, open);
  return {io::diff(*first, *second, {.tolerance = arguments.tolerance, .progress = byte_progress("diff")}),
          first->tensors().size()};
}

void print_report(const DiffArguments& arguments, const Compared& compared) {
  std::string text;
  for (const io::Difference& difference : compared.differences) {
    text += fmt::format("{}: {}\n", printable(difference.name), printable(difference.what));
  }
  if (compared.differences.empty()) {
    text = fmt::format("equal{}: {} tensor{}\n",
                       arguments.tolerance > 0 ? fmt::format(" within {}", arguments.tolerance) : "",
                       compared.tensors, compared.tensors == 1 ? "" : "s");
  }
  print(text);
}

int run_diff(const DiffArguments& arguments) {
  check_standard_output();
  const Compared compared = compare(arguments);
  const bool equal = compared.differences.empty();
  if (arguments.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const io::Difference& difference : compared.differences) {
      list.push_back({{"name", difference.name}, {"difference", difference.what}});
    }
    print_json({{"first", arguments.first},
                {"second", arguments.second},
                {"tolerance", arguments.tolerance},
                {"tensors", compared.tensors},
                {"equal", equal},
                {"differences", list}});
  } else {
    print_report(arguments, compared);
  }
  return equal ? kEqual : kDifferent;
}

/// A failure must not look like a difference.
int diff(const DiffArguments& arguments) {
  apps::install_interrupt_handler();
  try {
    return run_diff(arguments);
  } catch (const std::exception& error) {
    say(fmt::format("trit: {}", printable(error.what())));
    return kTrouble;
  }
}

}  // namespace

void add_diff_command(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<DiffArguments>();
  CLI::App* command =
      app.add_subcommand("diff", "list the tensors that differ between two models, whatever their formats");
  add_required_path(*command, "first", arguments->first, "model, in any format that convert reads");
  add_required_path(*command, "second", arguments->second, "model to compare with");
  command
      ->add_option("--tolerance", arguments->tolerance,
                   "largest relative difference of scales and float elements that counts as equal; 0.001 "
                   "suits float16 scales")
      ->type_name("X")
      ->capture_default_str()
      ->check(apps::number(0, 1));
  add_scale_convention_option(
      *command, arguments->convention,
      "what weight_scale does in packed layers of transformers, if no config.json says so");
  add_input_type_option(*command, arguments->input_type);
  add_json_option(*command, arguments->json);
  command->footer(
      "Prints one line for each tensor that differs, or \"equal: 21 tensors\". Elements and scales are\n"
      "compared by value: -0 equals 0, NaN equals NaN, an infinity equals only itself.\n"
      "Exit codes: 0 equal, 1 different, 2 failed.\n\n"
      "Example: trit diff model.safetensors model.gguf --tolerance 0.001");
  command->callback([arguments, &action] { action = [arguments] { return diff(*arguments); }; });
}

}  // namespace trit::cli

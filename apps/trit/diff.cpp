// SPDX-License-Identifier: MIT
//
// trit diff: which tensors of two models differ, in codes, scales or elements. Exit codes as diff(1) has
// them.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "common/progress.h"
#include "output.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::cli {
namespace {

constexpr int kEqual = 0;
constexpr int kDifferent = 1;
constexpr int kTrouble = 2;

struct DiffArguments {
  std::string first, second;
  double tolerance = 0;
  std::optional<io::ScaleConvention> convention;
  bool json = false;
};

struct Interrupted {};

std::vector<io::Difference> differences_of(const DiffArguments& arguments) {
  const io::OpenOptions open{.scale_convention = arguments.convention, .config_wins = true};
  const auto first = io::open_checkpoint(arguments.first, open);
  const auto second = io::open_checkpoint(arguments.second, open);
  constexpr std::uint64_t kMegabyte = 1'000'000;
  std::unique_ptr<apps::Progress> progress;
  io::DiffOptions options;
  options.tolerance = arguments.tolerance;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (apps::interrupted()) {
      throw Interrupted();
    }
    if (!progress) {
      progress = std::make_unique<apps::Progress>("diff", static_cast<std::int64_t>(total / kMegabyte), "MB");
    }
    progress->update(static_cast<std::int64_t>(done / kMegabyte));
  };
  return io::diff(*first, *second, options);
}

int run_diff(const DiffArguments& arguments) {
  const std::vector<io::Difference> differences = differences_of(arguments);
  if (arguments.json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const io::Difference& difference : differences) {
      list.push_back({{"name", difference.name}, {"difference", difference.what}});
    }
    print_json({{"first", arguments.first},
                {"second", arguments.second},
                {"equal", differences.empty()},
                {"differences", list}});
  } else {
    std::string text;
    for (const io::Difference& difference : differences) {
      text += fmt::format("{}: {}\n", printable(difference.name), printable(difference.what));
    }
    print(text);
  }
  return differences.empty() ? kEqual : kDifferent;
}

/// A failure must not look like a difference.
int diff(const DiffArguments& arguments) {
  apps::install_interrupt_handler();
  try {
    return run_diff(arguments);
  } catch (const Interrupted&) {
    say("trit: interrupted");
    return kInterrupted;
  } catch (const std::exception& error) {
    say(fmt::format("trit: {}", printable(error.what())));
    return kTrouble;
  }
}

}  // namespace

void add_diff_command(CLI::App& app, Action& action) {
  const auto arguments = std::make_shared<DiffArguments>();
  CLI::App* command =
      app.add_subcommand("diff", "which tensors of two models differ, whatever their file formats");
  command->add_option("first", arguments->first, "model, in any format that convert reads")
      ->required()
      ->type_name("A");
  command->add_option("second", arguments->second, "model to compare with")->required()->type_name("B");
  command
      ->add_option("--tolerance", arguments->tolerance,
                   "relative difference of scales and float elements that is none (0.001 for float16 scales)")
      ->type_name("X")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  add_scale_convention_option(
      *command, arguments->convention,
      "what weight_scale does in packed layers of transformers, where no config.json says it");
  add_json_option(*command, arguments->json);
  command->footer(
      "One line a tensor that differs. Exit codes: 0 equal, 1 different, 2 failed.\n"
      "Example: trit diff model.safetensors model.gguf --tolerance 0.001");
  command->callback([arguments, &action] { action = [arguments] { return diff(*arguments); }; });
}

}  // namespace trit::cli

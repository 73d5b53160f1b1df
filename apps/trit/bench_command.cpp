// SPDX-License-Identifier: MIT
//
// The options of trit bench; bench.cpp measures.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <iterator>
#include <memory>

#include "bench.h"
#include "command.h"

namespace trit::cli {
namespace {

// Within int32 sums (linear.h), and weights that a machine can hold.
constexpr std::int64_t kLargest = 16'777'215;

// A whole number 1..kLargest at the start of `text`, which it is taken off.
std::int64_t take_number(std::string_view& text, const std::string& all, const char* wanted) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 1 || value > kLargest) {
    throw CLI::ValidationError(fmt::format("'{}': wanted {}, numbers from 1 to {}", all, wanted, kLargest));
  }
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

apps::LinearShape shape_of(const std::string& text) {
  constexpr const char* kWanted = "NxK (outputs x inputs)";
  std::string_view rest = text;
  const std::int64_t out_features = take_number(rest, text, kWanted);
  if (!rest.starts_with('x')) {
    throw CLI::ValidationError(fmt::format("'{}': wanted {}", text, kWanted));
  }
  rest.remove_prefix(1);
  const std::int64_t in_features = take_number(rest, text, kWanted);
  if (!rest.empty()) {
    throw CLI::ValidationError(fmt::format("'{}': wanted {}", text, kWanted));
  }
  return {out_features, in_features};
}

// Nothing is kept or written half-way: Ctrl-C may end the process where it stands.
extern "C" void end_at_once(int) { _exit(kInterrupted); }

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "speed of ternary layers of given shapes on this machine");
  add_backend_option(*command, options->backend);
  add_threads_option(*command, options->threads);
  const auto shapes = std::make_shared<std::vector<std::string>>();
  command->add_option("--shapes", *shapes, "layers, outputs x inputs")
      ->type_name("NxK,...")
      ->delimiter(',')
      ->default_str("4096x4096,512x4096,10x512");
  command->add_option("--tokens", options->tokens, "rows of the input (the batch)")
      ->type_name("M,...")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->default_str("1,8,128");
  add_json_option(*command, options->json);
  command->footer("Example: trit bench --shapes 4096x4096,14336x4096 --tokens 1,128 --threads 1 --json");
  command->callback([options, shapes, &action] {
    if (!shapes->empty()) {
      options->shapes.clear();
      std::transform(shapes->begin(), shapes->end(), std::back_inserter(options->shapes), shape_of);
    }
    action = [options] {
      std::signal(SIGINT, end_at_once);
      std::signal(SIGTERM, end_at_once);
      return run_bench(*options);
    };
  });
}

}  // namespace trit::cli

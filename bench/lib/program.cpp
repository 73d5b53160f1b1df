// SPDX-License-Identifier: MIT
#include "bench/lib/program.h"

#include <limits>
#include <memory>

#include "bench/lib/machine.h"
#include "common/help.h"
#include "common/number_options.h"

namespace trit::bench {

CommandLine::CommandLine(const std::string& description, const std::string& example) : App(description) {
  formatter(std::make_shared<apps::HelpFormatter>());
  footer("Example: " + example);
  option_defaults()->always_capture_default();
}

void CommandLine::add_json(std::string& path, const std::string& help) {
  add_option("--json", path, help)->type_name("PATH");
}

void CommandLine::add_rounds(TimingOptions& timing) {
  add_option("--rounds", timing.rounds, "rounds; times are medians over them")
      ->type_name("N")
      ->check(apps::whole_number(1, std::numeric_limits<int>::max()).description("1 or more"));
}

void CommandLine::add_backend(std::string& name) {
  add_option("--backend", name, "kernels to use; auto is the fastest of this CPU")->type_name("NAME");
}

void CommandLine::add_threads(std::vector<int>& threads) {
  add_option("--threads", threads, "numbers of threads")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(apps::whole_number(1, apps::kMaxThreads));
}

void CommandLine::add_settle(double& milliseconds, const std::string& help) {
  add_option("--settle", milliseconds, help)->type_name("X")->check(apps::number(0));
}

void CommandLine::add_tokens(std::vector<std::int64_t>& tokens) {
  add_option("--tokens", tokens, "numbers of tokens, the rows of the input")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(apps::whole_number(1));
}

void CommandLine::add_shapes(std::vector<LinearShape>& shapes) {
  std::string names;
  for (const LinearShape shape : shapes) {
    names += (names.empty() ? "" : ", ") + name_of(shape);
  }
  add_option_function<std::vector<std::string>>(
      "--shapes",
      [&shapes](const std::vector<std::string>& texts) {
        shapes.clear();
        for (const std::string& text : texts) {
          shapes.push_back(shape_from_name(text));
        }
      },
      "layers, as outputs x inputs")
      ->type_name("NxK,...")
      ->delimiter(',')
      ->default_str(names);
}

std::vector<int> one_and_all_threads() {
  const int cores = this_machine().cores;
  return cores == 1 ? std::vector<int>{1} : std::vector<int>{1, cores};
}

}  // namespace trit::bench

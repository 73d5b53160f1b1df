// SPDX-License-Identifier: MIT
//
// What the benchmark programs share: main() and the options that several of them have.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/lib/linear_case.h"
#include "bench/lib/timing.h"

namespace trit::bench {

/// Defined by each program. main() (lib/main.cpp) turns an exception into a message and exit code 1.
int run(int argc, char** argv);

/// A command line whose --help is laid out as in all programs. Options hold their default when they are
/// added; lists are separated by commas.
class CommandLine : public CLI::App {
 public:
  CommandLine(const std::string& description, const std::string& example);

  void add_json(std::string& path, const std::string& help = "file, or folder for <machine>.json, to add to");
  void add_rounds(TimingOptions& timing);
  void add_settle(double& milliseconds, const std::string& help);
  void add_backend(std::string& name);
  void add_threads(std::vector<int>& threads);
  void add_tokens(std::vector<std::int64_t>& tokens);
  void add_shapes(std::vector<LinearShape>& shapes);
};

/// One thread and all threads.
std::vector<int> one_and_all_threads();

}  // namespace trit::bench

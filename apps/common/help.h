// SPDX-License-Identifier: MIT
//
// The layout of the --help of every program, in lines of at most 100 columns. Ranges, choices and defaults
// stand behind the description of an option:
//
//   --batch-size N              images per step (1 or more; default 128)
//   --schedule NAME             learning rate schedule (constant, cosine or onecycle; default cosine)
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace trit::apps {

/// Pass one to CLI::App::formatter() before subcommands are added: they inherit it.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(28); }
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

}  // namespace trit::apps

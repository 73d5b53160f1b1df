// SPDX-License-Identifier: MIT
//
// trit: inspects, evaluates, runs, makes and converts packed ternary models, without torch.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <exception>
#include <memory>
#include <new>
#include <sstream>

#include "command.h"
#include "common/help.h"
#include "output.h"
#include "trit/backend.h"
#include "trit/version.h"

namespace {

int run(int argc, char** argv) {
  using namespace trit::cli;
  CLI::App app{"Inspects, evaluates, runs, makes and converts packed ternary (1.58-bit) models.", "trit"};
  app.formatter(std::make_shared<trit::apps::HelpFormatter>());
  app.set_version_flag("--version", "trit " TRIT_VERSION);
  app.require_subcommand(1);
  app.footer(fmt::format(
      "Every command takes --json; info, eval, run and bench take --backend; eval, run and bench take\n"
      "--threads. \"trit COMMAND --help\" shows all options of a command and an example.\n"
      "Backends of this machine: {}.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted;\n"
      "of diff: 0 equal, 1 different, 2 failed.\n\n"
      "Example: trit info model.safetensors",
      fmt::join(trit::available_backends(), ", ")));
  Action action;
  add_info_command(app, action);
  add_eval_command(app, action);
  add_run_command(app, action);
  add_pack_command(app, action);
  add_convert_command(app, action);
  add_diff_command(app, action);
  add_bench_command(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream message;
    const bool asked = app.exit(error, out, message) == 0;  // --help, --version
    trit::apps::write_error(message.str());
    print(out.str());
    return asked ? kDone : kUsage;
  }
  return action();
}

}  // namespace

int main(int argc, char** argv) {
  trit::apps::prepare_standard_streams();
  try {
    return run(argc, argv);
  } catch (const trit::cli::Interrupted&) {
    trit::cli::say("trit: interrupted");
    return trit::cli::kInterrupted;
  } catch (const std::bad_alloc&) {
    trit::cli::say("trit: out of memory");
  } catch (const std::exception& error) {
    trit::cli::say(fmt::format("trit: {}", trit::cli::printable(error.what())));  // may quote a damaged file
  }
  return trit::cli::kFailed;
}

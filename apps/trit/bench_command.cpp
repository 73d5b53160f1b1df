// SPDX-License-Identifier: MIT
//
// The options of trit bench; bench.cpp measures.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <memory>

#include "bench.h"
#include "command.h"
#include "common/number_options.h"
#include "output.h"
#include "trit/error.h"

namespace trit::cli {
namespace {

bench::LinearShape shape_of(const std::string& text) {
  try {
    return bench::shape_from_name(text);
  } catch (const Error& error) {
    throw CLI::ValidationError(error.what());
  }
}

// Nothing is written before the end: Ctrl-C may end the process at once.
extern "C" void end_at_once(int) { _exit(kInterrupted); }

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "speed of ternary layers of given shapes on this machine");
  add_backend_option(*command, options->backend);
  command
      ->add_option("--threads", options->threads,
                   "CPU threads; 0 means all CPUs that this process may use; if not given, one and then all")
      ->type_name("N")
      ->check(apps::whole_number(0, apps::kMaxThreads));
  const auto shapes = std::make_shared<std::vector<std::string>>();
  command->add_option("--shapes", *shapes, "layers, as outputs x inputs")
      ->type_name("NxK,...")
      ->delimiter(',')
      ->default_str("six of common models, two of SimpleBitNetCNN");
  const CLI::Option* tokens = command->add_option("--tokens", options->tokens, "rows of the input")
                                  ->type_name("N,...")
                                  ->delimiter(',')
                                  ->check(apps::whole_number(1, 1'000'000))
                                  ->default_str("1,4,8,32,128,512");
  command
      ->add_option("--group", options->group,
                   "measure also with float16 scales for groups of so many inputs, a multiple of 32")
      ->type_name("N")
      ->check(apps::whole_number(kGroupStep));
  command->add_flag("--quick", options->quick,
                    "4096x4096, 512x4096 and 10x512 with 1, 8 and 128 tokens in fewer rounds: seconds");
  command->add_flag(
      "--tune", options->tune,
      "cuda: time the plans of the kernels for these shapes and tokens, and save the fastest for this "
      "GPU model");
  add_json_option(*command, options->json);
  command->footer(
      "If a backend has two layouts of the weights, both are measured and * marks the chosen one.\n"
      "TRIT_LAYOUT=two_bit or base3 forces one, here and in every other command; auto or unset chooses.\n"
      "The whole table takes a few minutes on two cores, --quick less than one, and up to nine times the\n"
      "last cache of memory. With --backend cuda it takes seconds, and --threads has no effect. Every\n"
      "command with that backend uses the plans that --tune has saved (in $XDG_CACHE_HOME/trit or\n"
      "~/.cache/trit); TRIT_CUDA_TUNING=off ignores them, TRIT_CUDA_TUNING=FILE names another file.\n\n"
      "Example: trit bench --shapes 4096x4096,14336x4096 --tokens 1,128 --threads 1 --json");
  command->callback([options, shapes, tokens, &action] {
    if (options->quick && tokens->empty()) {
      options->tokens = quick_tokens();
    }
    if (options->quick && shapes->empty()) {
      options->shapes = quick_shapes();
    } else if (!shapes->empty()) {
      options->shapes.clear();
      std::transform(shapes->begin(), shapes->end(), std::back_inserter(options->shapes), shape_of);
    }
    action = [options] {
      std::signal(SIGINT, end_at_once);
      std::signal(SIGTERM, end_at_once);
      std::signal(SIGHUP, end_at_once);
      check_standard_output();
      return run_bench(*options);
    };
  });
}

}  // namespace trit::cli

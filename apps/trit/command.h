// SPDX-License-Identifier: MIT
//
// What the subcommands of `trit` share. Each has a file of its own, where add_<name>_command declares its
// options and sets the action to run.
// Exit codes: 0 done, 1 failed (an exception), 2 wrong usage, 130 interrupted.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "trit/io.h"
#include "trit/model.h"

namespace trit::cli {

inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;
inline constexpr int kInterrupted = 130;

/// What the chosen subcommand does. Returns the exit code; throws for a failure.
using Action = std::function<int()>;

/// Thrown to end the work after SIGINT or SIGTERM, without leaving an output file. main() then exits with
/// kInterrupted.
struct Interrupted {};

/// Throws Interrupted if a signal has arrived.
void check_interrupted();

/// A progress bar in megabytes, until the function is destroyed. Each call also checks for a signal.
std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> byte_progress(
    const std::string& title);

void add_info_command(CLI::App& app, Action& action);
void add_eval_command(CLI::App& app, Action& action);
void add_run_command(CLI::App& app, Action& action);
void add_pack_command(CLI::App& app, Action& action);
void add_convert_command(CLI::App& app, Action& action);
void add_diff_command(CLI::App& app, Action& action);
void add_bench_command(CLI::App& app, Action& action);

/// A required file or folder: a positional argument, or an option if `name` begins with "--".
void add_required_path(CLI::App& command, const std::string& name, std::string& path,
                       const std::string& help);
/// Throws trit::Error for a file or folder of another project, which `eval` and `run` cannot run.
void check_is_model(const std::filesystem::path& path);

/// --backend NAME. An unknown name is wrong usage, and the message lists what this machine has. A backend
/// that the machine lacks fails when it is first used.
CLI::Option* add_backend_option(CLI::App& command, Backend& backend);
/// --threads N; 0, the default, means all CPUs that this process may use.
void add_threads_option(CLI::App& command, int& threads);
/// --scale-convention multiply or divide; nothing if not given.
void add_scale_convention_option(CLI::App& command, std::optional<io::ScaleConvention>& convention,
                                 const std::string& help);
/// --input-type q2_0, pq2_0 or ptq1_0: what GGUF's types 42 and 143 are where a file does not tell.
void add_input_type_option(CLI::App& command, std::string& type);
/// --json
void add_json_option(CLI::App& command, bool& json);

}  // namespace trit::cli

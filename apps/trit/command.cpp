// SPDX-License-Identifier: MIT
#include "command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "common/number_options.h"
#include "common/path_option.h"
#include "common/progress.h"
#include "trit/backend.h"
#include "trit/error.h"

namespace trit::cli {

void check_interrupted() {
  if (apps::interrupted()) {
    throw Interrupted();
  }
}

std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> byte_progress(
    const std::string& title) {
  return [title, bar = std::shared_ptr<apps::Progress>()](std::uint64_t done, std::uint64_t total) mutable {
    constexpr std::uint64_t kMegabyte = 1'000'000;
    check_interrupted();
    if (!bar) {
      bar = std::make_shared<apps::Progress>(title, static_cast<std::int64_t>(total / kMegabyte), "MB");
    }
    bar->update(static_cast<std::int64_t>(done / kMegabyte));
  };
}

void add_required_path(CLI::App& command, const std::string& name, std::string& path,
                       const std::string& help) {
  command.add_option(name, path, help)->required()->type_name("FILE")->check(apps::path_check());
}

void check_is_model(const std::filesystem::path& path) {
  const bool folder = std::filesystem::is_directory(path);
  if (folder || io::detect_format(path) == io::Format::gguf) {
    throw Error(
        fmt::format("{}: {}, which trit cannot run; wanted a model file (docs/format.md). \"trit convert IN "
                    "OUT --to trit\" makes one from a file that trit has written",
                    path.string(), folder ? "a folder" : "a GGUF file"));
  }
}

CLI::Option* add_backend_option(CLI::App& command, Backend& backend) {
  return command
      .add_option_function<std::string>(
          "--backend",
          [&backend](const std::string& name) {
            try {
              backend = backend_from_name(name);
            } catch (const Error&) {
              throw CLI::ValidationError(
                  "--backend",
                  fmt::format(
                      "there is no backend '{}'; this machine has: auto, {}; cuda needs an NVIDIA GPU", name,
                      fmt::join(available_backends(), ", ")));
            }
          },
          "kernels to use: auto is what TRIT_BACKEND names, or else the fastest of this CPU; cuda is an "
          "NVIDIA GPU")
      ->type_name("NAME")
      ->default_str("auto");
}

void add_threads_option(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "CPU threads; 0 means all CPUs that this process may use")
      ->type_name("N")
      ->capture_default_str()
      ->check(apps::whole_number(0, apps::kMaxThreads));
}

void add_scale_convention_option(CLI::App& command, std::optional<io::ScaleConvention>& convention,
                                 const std::string& help) {
  command
      .add_option_function<std::string>(
          "--scale-convention",
          [&convention](const std::string& text) {
            convention = text == "multiply" ? io::ScaleConvention::multiply : io::ScaleConvention::divide;
          },
          help)
      ->type_name("NAME")
      ->check(CLI::IsMember({"multiply", "divide"}));
}

void add_input_type_option(CLI::App& command, std::string& type) {
  command
      .add_option(
          "--input-type", type,
          "GGUF: what a type with two meanings is, where the file does not tell: type 42 q2_0 (blocks "
          "of 64) or pq2_0 (of 128, older files); type 143 ptq1_0")
      ->type_name("NAME")
      ->check(CLI::IsMember({"q2_0", "pq2_0", "ptq1_0"}));
}

void add_json_option(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "print one JSON object to standard output");
}

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
#include "train_cifar10/output_paths.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "train_cifar10/metrics.h"
#include "trit/error.h"

namespace trit::train {
namespace {

namespace fs = std::filesystem;

fs::path normal(const fs::path& path) {
  std::error_code failure;
  const fs::path result = fs::weakly_canonical(path, failure);
  return failure ? fs::absolute(path).lexically_normal() : result;
}

/// `out` is the run's folder: it will exist by the time that the file is written.
void check_file(const char* option, const fs::path& path, const fs::path& out, bool regular_only) {
  const std::string what = fmt::format("{} {}", option, path.string());
  std::error_code failure;
  const fs::file_status status = fs::status(path, failure);
  if (fs::is_directory(status)) throw Error(what + ": is a folder, wanted a file");
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    if (regular_only) throw Error(what + ": is a device, pipe or socket, wanted a regular file or none");
    if (access(path.c_str(), W_OK) != 0)
      throw Error(fmt::format("{}: cannot be written: {}", what, std::strerror(errno)));
    return;
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::exists(folder, failure) && normal(folder) == normal(out)) return;
  if (!fs::is_directory(folder, failure))
    throw Error(fmt::format("{}: there is no folder {}", what, folder.string()));
  if (access(folder.c_str(), W_OK | X_OK) != 0) {
    throw Error(
        fmt::format("{}: the folder {} cannot be written: {}", what, folder.string(), std::strerror(errno)));
  }
}

}  // namespace

fs::path metrics_path(const TrainOptions& options) {
  return options.metrics.empty() ? options.out / "metrics.jsonl" : options.metrics;
}

void check_output_paths(const TrainOptions& options) {
  if (!options.metrics.empty()) {
    check_file("--metrics", options.metrics, options.out, /*regular_only=*/false);
    if (!options.resume) check_metrics_file_is_new(options.metrics);
  }
  if (options.predictions.empty()) return;
  check_file("--predictions", options.predictions, options.out, /*regular_only=*/true);
  for (const fs::path& other : {metrics_path(options), options.out / "model.safetensors"}) {
    if (normal(options.predictions) == normal(other)) {
      throw Error(fmt::format("--predictions {}: the run writes another file there; choose another name",
                              options.predictions.string()));
    }
  }
}

}  // namespace trit::train

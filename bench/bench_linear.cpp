// SPDX-License-Identifier: MIT
//
// Packed ternary layers of every backend: the layers of common models and of SimpleBitNetCNN, one token to
// 512, on one thread and on all, beside the int8 peak and the bandwidths measured in the same rounds. Every
// output is compared with an exact reference first. (`trit bench` is the same for one backend.)
//
//   bench_linear --json results/      adds the object "linear" to results/<machine>.json
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "bench/lib/huge_buffer.h"
#include "bench/lib/linear_benchmark.h"
#include "bench/lib/linear_report.h"
#include "bench/lib/report.h"
#include "common/progress.h"

namespace {

using namespace trit;
using nlohmann::ordered_json;

/// What two results of the same measurement have in common.
bool same_case(const ordered_json& a, const ordered_json& b) {
  for (const char* key :
       {"backend", "layout", "threads", "out_features", "in_features", "tokens", "weights_from"}) {
    if (a.contains(key) != b.contains(key) || (a.contains(key) && a[key] != b[key])) {
      return false;
    }
  }
  return true;
}

/// Adds to `all` what is new in `old`: an earlier run's cases that this one has not measured.
void keep_others(ordered_json& all, const ordered_json& old) {
  for (const char* list : {"limits", "results"}) {
    for (const ordered_json& item : old.value(list, ordered_json::array())) {
      if (std::none_of(all[list].begin(), all[list].end(),
                       [&](const auto& mine) { return same_case(mine, item); })) {
        all[list].push_back(item);
      }
    }
  }
}

int run(int argc, char** argv) {
  apps::keep_freed_memory();
  CLI::App app{"Times packed ternary products against the limits of this machine."};
  std::string json;
  apps::TimingOptions timing;
  std::vector<std::string> names;
  std::vector<int> threads{1, apps::this_machine().cores};
  std::vector<std::int64_t> tokens = apps::usual_tokens();
  std::vector<std::string> shape_names;
  bool merge = false;
  app.add_option("--json", json, "file, or folder for <machine>.json, to add the results to");
  app.add_option("--backend", names, "backends (default: all but scalar)")->delimiter(',');
  app.add_option("--threads", threads, "numbers of threads")->delimiter(',');
  app.add_option("--tokens", tokens, "numbers of tokens")->delimiter(',');
  app.add_option("--shapes", shape_names, "layers, NxK (default: eight)")->delimiter(',');
  app.add_flag("--merge", merge, "keep what the JSON file says of other cases");
  app.add_option("--rounds", timing.rounds, "rounds; figures are medians over them")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());

  std::vector<Backend> backends;
  for (const std::string& name : names.empty() ? available_backends() : names) {
    if (!names.empty() || name != "scalar") {
      backends.push_back(backend_from_name(name));
    }
  }
  if (backends.empty()) {
    backends.push_back(Backend::scalar);
  }
  std::vector<apps::LinearShape> shapes = apps::usual_shapes();
  if (!shape_names.empty()) {
    shapes.clear();
    std::transform(shape_names.begin(), shape_names.end(), std::back_inserter(shapes), apps::shape_from_name);
  }
  std::vector<apps::LinearReport> reports;
  for (const int count : threads) {
    const apps::LinearBenchmark options{backends, shapes, tokens, count, timing};
    std::optional<apps::Progress> progress;
    reports.push_back(apps::benchmark_linear(options, [&](std::int64_t done, std::int64_t total) {
      if (!progress) {
        progress.emplace(fmt::format("bench_linear, {} thread(s)", count), total, "batches");
      }
      progress->update(done);
    }));
    progress.reset();
    fmt::print("{}", apps::table(reports.back()));
  }
  if (!json.empty()) {
    ordered_json all = apps::to_json(reports);
    if (merge) {
      keep_others(all, bench::stored(json, "linear"));
    }
    bench::store(json, "linear", all);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_linear: {}\n", error.what());
    return 1;
  }
}

// SPDX-License-Identifier: MIT
//
// The product of packed ternary layers: a large square layer and the two of SimpleBitNetCNN, one token to a
// batch, on one thread and on all, beside the int8 peak and the memory bandwidth measured in the same rounds.
// Every output is compared with an exact reference first.
//
//   bench_linear --json results/      adds the object "linear" to results/<machine>.json
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "common/linear_benchmark.h"
#include "common/progress.h"
#include "report.h"

namespace {

using namespace trit;
using nlohmann::ordered_json;

ordered_json to_json(const apps::LinearReport& report) {
  ordered_json limits = ordered_json::array();
  for (const apps::BackendLimits& limit : report.limits) {
    limits.push_back(
        {{"backend", name_of(limit.backend)}, {"instruction", limit.instruction}, {"gops", limit.gops}});
  }
  ordered_json results = ordered_json::array();
  for (const apps::LinearResult& result : report.results) {
    results.push_back({{"backend", name_of(result.backend)},
                       {"out_features", result.shape.out_features},
                       {"in_features", result.shape.in_features},
                       {"tokens", result.tokens},
                       {"weights_from", apps::name_of(result.from)},
                       {"microseconds", result.microseconds},
                       {"gops", result.gops},
                       {"weight_gigabytes_per_second", result.weight_gigabytes_per_second},
                       {"share", result.share ? ordered_json(*result.share) : ordered_json()},
                       {"limit", result.limit}});
  }
  return {{"threads", report.threads},
          {"memory_gigabytes_per_second", report.memory_gigabytes_per_second},
          {"limits", limits},
          {"results", results}};
}

void print(const apps::LinearReport& report) {
  fmt::print("{} thread{}: memory read {:.1f} GB/s", report.threads, report.threads == 1 ? "" : "s",
             report.memory_gigabytes_per_second);
  for (const apps::BackendLimits& limit : report.limits) {
    fmt::print(", {} {:.0f} GOP/s", limit.instruction.empty() ? "no int8 peak" : limit.instruction,
               limit.gops);
  }
  fmt::print("\n{:<12} {:>11} {:>6} {:>7} {:>10} {:>7} {:>7} {:>7} of\n", "backend", "N x K", "tokens",
             "weights", "us", "GOP/s", "GB/s", "share");
  for (const apps::LinearResult& result : report.results) {
    fmt::print("{:<12} {:>11} {:>6} {:>7} {:>10.2f} {:>7.1f} {:>7.2f} {:>6.1f}% {}\n",
               name_of(result.backend),
               fmt::format("{}x{}", result.shape.out_features, result.shape.in_features), result.tokens,
               apps::name_of(result.from), result.microseconds, result.gops,
               result.weight_gigabytes_per_second, 100 * result.share.value_or(0), result.limit);
  }
}

int run(int argc, char** argv) {
  CLI::App app{"Times packed ternary products against the limits of this machine."};
  std::string json;
  apps::TimingOptions timing;
  std::vector<std::string> names;
  std::vector<int> threads{1, apps::this_machine().cores};
  std::vector<std::int64_t> tokens{1, 8, 128};
  app.add_option("--json", json, "file, or folder for <machine>.json, to add the results to");
  app.add_option("--backend", names, "backends (default: all but scalar)")->delimiter(',');
  app.add_option("--threads", threads, "numbers of threads")->delimiter(',');
  app.add_option("--tokens", tokens, "numbers of tokens")->delimiter(',');
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
  ordered_json reports = ordered_json::array();
  for (const int count : threads) {
    apps::LinearBenchmark options{backends, {{4096, 4096}, {512, 4096}, {10, 512}}, tokens, count, timing};
    std::optional<apps::Progress> progress;
    const apps::LinearReport report =
        apps::benchmark_linear(options, [&](std::int64_t done, std::int64_t total) {
          if (!progress) {
            progress.emplace(fmt::format("bench_linear, {} thread(s)", count), total, "batches");
          }
          progress->update(done);
        });
    progress.reset();
    print(report);
    reports.push_back(to_json(report));
  }
  if (!json.empty()) {
    bench::store(json, "linear", reports);
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

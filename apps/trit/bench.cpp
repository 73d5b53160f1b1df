// SPDX-License-Identifier: MIT
#include "bench.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "common/machine.h"
#include "common/progress.h"
#include "output.h"

namespace trit::cli {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const apps::Machine& machine, const apps::LinearReport& report) {
  ordered_json results = ordered_json::array();
  for (const apps::LinearResult& result : report.results) {
    results.push_back({{"out_features", result.shape.out_features},
                       {"in_features", result.shape.in_features},
                       {"tokens", result.tokens},
                       {"weights_from", apps::name_of(result.from)},
                       {"microseconds", result.microseconds},
                       {"weight_gigabytes_per_second", result.weight_gigabytes_per_second},
                       {"gops", result.gops},
                       {"share", result.share ? ordered_json(*result.share) : ordered_json()},
                       {"limit", result.share ? ordered_json(result.limit) : ordered_json()}});
  }
  const apps::BackendLimits& limits = report.limits.front();
  return {
      {"backend", name_of(limits.backend)},
      {"threads", report.threads},
      {"machine", {{"cpu", machine.cpu}, {"cores", machine.cores}, {"compiler", machine.compiler}}},
      {"limits",
       {{"int8_gops", limits.instruction.empty() ? ordered_json() : ordered_json(limits.gops)},
        {"int8_instruction", limits.instruction.empty() ? ordered_json() : ordered_json(limits.instruction)},
        {"memory_gigabytes_per_second", report.memory_gigabytes_per_second}}},
      {"results", results}};
}

std::string table(const apps::Machine& machine, const apps::LinearReport& report) {
  const apps::BackendLimits& limits = report.limits.front();
  std::string text = fmt::format("{}, {} on {} thread{}\n", machine.cpu, name_of(limits.backend),
                                 report.threads, report.threads == 1 ? "" : "s");
  text += limits.instruction.empty()
              ? "limits: "
              : fmt::format("limits: {} {:.0f} GOP/s, ", limits.instruction, limits.gops);
  text += fmt::format("memory read {:.1f} GB/s\n\n", report.memory_gigabytes_per_second);
  text += fmt::format("{:>13} {:>7} {:>8} {:>11} {:>9} {:>8}  {}\n", "N x K", "tokens", "weights", "us",
                      "GB/s", "GOP/s", "share of limit");
  for (const apps::LinearResult& result : report.results) {
    text += fmt::format(
        "{:>13} {:>7} {:>8} {:>11.2f} {:>9.2f} {:>8.1f}  {}\n",
        fmt::format("{}x{}", result.shape.out_features, result.shape.in_features), result.tokens,
        apps::name_of(result.from), result.microseconds, result.weight_gigabytes_per_second, result.gops,
        result.share ? fmt::format("{:.1f} % of {}", 100 * *result.share, result.limit) : "-");
  }
  return text +
         "\nGB/s: packed weights. GOP/s: a multiply-add is two. Weights from cache: one layer again and "
         "again; from memory: more layers in turn than the last cache holds.\n";
}

}  // namespace

int run_bench(const BenchOptions& options) {
  const int threads = options.threads > 0 ? options.threads : apps::this_machine().cores;
  const Backend backend = cpu_kernels_for(options.backend).backend;
  std::optional<apps::Progress> progress;
  const apps::LinearReport report = apps::benchmark_linear({.backends = {backend},
                                                            .shapes = options.shapes,
                                                            .tokens = options.tokens,
                                                            .threads = threads,
                                                            .timing = {}},
                                                           [&](std::int64_t done, std::int64_t total) {
                                                             if (!progress) {
                                                               progress.emplace("bench", total, "batches");
                                                             }
                                                             progress->update(done);
                                                           });
  progress.reset();
  const apps::Machine machine = apps::this_machine();
  if (options.json) {
    print_json(to_json(machine, report));
  } else {
    print(table(machine, report));
  }
  return 0;
}

}  // namespace trit::cli

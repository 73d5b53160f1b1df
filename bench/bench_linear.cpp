// SPDX-License-Identifier: MIT
//
// Packed ternary layers of every backend: the layers of common models and of SimpleBitNetCNN, one token to
// 512, on one thread and on all, beside the int8 peak and the bandwidths measured in the same rounds. Every
// output is compared with an exact reference first. (`trit bench` is the same for one backend.)
//
//   bench_linear --json results/      adds the object "linear" to results/<machine>.json
//   bench_linear --hybrid             the hybrid kernel of AVX-512 VNNI against product tiles, on one thread
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <optional>

#include "common/huge_buffer.h"
#include "common/limits.h"
#include "common/linear_benchmark.h"
#include "common/linear_report.h"
#include "common/progress.h"
#include "report.h"

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

/// Product tiles and the hybrid kernel in turn (TRIT_HYBRID), beside the int8 peak of the same rounds.
ordered_json compare_hybrid(const apps::LinearBenchmark& options) {
  const auto parallel = make_parallel(1);
  const CpuKernels& kernels = cpu_kernels_for(Backend::avx512_vnni);
  const apps::Int8Peak peak = apps::int8_peak(Backend::avx512_vnni).value();
  ordered_json results;
  for (const apps::LinearShape& shape : options.shapes) {
    for (const std::int64_t tokens : options.tokens) {
      const apps::LinearCase layer = apps::make_linear_case(shape, tokens, 1, *parallel);
      const PackedLinear packed(kernels, *parallel, layer.weight.view(), PanelFormat::two_bit);
      std::vector<float> y(static_cast<std::size_t>(tokens * shape.out_features));
      const auto run = [&](const char* mode) {
        setenv("TRIT_HYBRID", mode, 1);  // this program has one thread
        packed.product(*parallel, layer.rows(tokens), nullptr, DataType::float32, y.data());
      };
      for (const char* mode : {"off", "on"}) {
        run(mode);
        apps::check_outputs(layer, tokens, y, mode);
      }
      const std::vector<std::function<void()>> subjects{peak.burst, [&] { run("off"); }, [&] { run("on"); }};
      const auto seconds = apps::time_interleaved(subjects, options.timing);
      unsetenv("TRIT_HYBRID");
      const double work = 2.0 * static_cast<double>(shape.out_features * shape.in_features * tokens);
      const double limit = work / peak.operations * apps::median(seconds[0]);
      const double tiles = limit / apps::median(seconds[1]);
      const double hybrid = limit / apps::median(seconds[2]);
      fmt::print("{:>11} {:>4} tokens: tiles {:.3f} of the peak, hybrid {:.3f}: {:.3f}x\n",
                 apps::name_of(shape), tokens, tiles, hybrid, hybrid / tiles);
      results.push_back({{"shape", apps::name_of(shape)},
                         {"tokens", tokens},
                         {"tiles_of_peak", tiles},
                         {"hybrid_of_peak", hybrid}});
    }
  }
  return results;
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
  bool hybrid = false;
  app.add_option("--json", json, "file, or folder for <machine>.json, to add the results to");
  app.add_option("--backend", names, "backends (default: all but scalar)")->delimiter(',');
  app.add_option("--threads", threads, "numbers of threads")->delimiter(',');
  app.add_option("--tokens", tokens, "numbers of tokens")->delimiter(',');
  app.add_option("--shapes", shape_names, "layers, NxK (default: eight)")->delimiter(',');
  app.add_flag("--hybrid", hybrid,
               "compare the hybrid kernel of AVX-512 VNNI with product tiles, and nothing else");
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
  if (hybrid) {
    const ordered_json result = compare_hybrid({{Backend::avx512_vnni}, shapes, tokens, 1, timing});
    if (!json.empty()) {
      bench::store(json, "hybrid", result);
    }
    return 0;
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

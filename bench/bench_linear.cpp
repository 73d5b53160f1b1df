// SPDX-License-Identifier: MIT
//
// Packed ternary layers of every backend: the layers of common models and of SimpleBitNetCNN, one token to
// 512, on one thread and on all, beside the int8 peak and the bandwidths measured in the same rounds. Every
// output is compared with an exact reference first. (`trit bench` is the same for one backend.)
//
//   bench_linear --json results/      adds the object "linear" to results/<machine>.json
#include <fmt/format.h>

#include <algorithm>

#include "bench/lib/huge_buffer.h"
#include "bench/lib/linear_benchmark.h"
#include "bench/lib/linear_report.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;

/// The keys in which results of different cases differ.
constexpr const char* kCaseKeys[] = {"backend",     "layout", "threads",     "out_features",
                                     "in_features", "tokens", "weights_from"};

}  // namespace

int bench::run(int argc, char** argv) {
  apps::keep_freed_memory();
  CommandLine app{"Times packed ternary products against the limits of this machine.",
                  "bench_linear --shapes 4096x4096 --tokens 1,128 --json bench/results"};
  std::string json;
  apps::TimingOptions timing;
  std::vector<std::string> names;
  std::vector<int> threads = one_and_all_threads();
  std::vector<std::int64_t> tokens = apps::usual_tokens();
  std::vector<apps::LinearShape> shapes = apps::usual_shapes();
  bool merge = false;
  app.add_json(json);
  app.add_option("--backend", names, "backends")
      ->type_name("NAME,...")
      ->delimiter(',')
      ->default_str("all but scalar");
  app.add_threads(threads);
  app.add_tokens(tokens);
  app.add_shapes(shapes);
  app.add_flag("--merge", merge, "keep the results of other cases in the JSON file");
  app.add_rounds(timing);
  CLI11_PARSE(app, argc, argv);

  std::vector<Backend> backends;
  for (const std::string& name : names.empty() ? available_backends() : names) {
    if (!names.empty() || name != "scalar") {
      backends.push_back(backend_from_name(name));
    }
  }
  if (backends.empty()) {
    backends.push_back(Backend::scalar);
  }
  std::vector<apps::LinearReport> reports;
  for (const int count : threads) {
    const apps::LinearBenchmark options{backends, shapes, tokens, count, timing};
    reports.push_back(apps::benchmark_linear(
        options, apps::progress_bar(fmt::format("bench_linear, {} thread(s)", count))));
    fmt::print("{}", apps::table(reports.back()));
  }
  if (!json.empty()) {
    ordered_json all = apps::to_json(reports);
    if (merge) {
      const ordered_json old = stored(json, "linear");
      for (const char* list : {"limits", "results"}) {
        keep_others(all[list], old.value(list, ordered_json::array()), kCaseKeys);
      }
    }
    bench::store(json, "linear", all);
  }
  return 0;
}

// SPDX-License-Identifier: MIT
//
// Packed ternary layers of every backend: the layers of common models and of SimpleBitNetCNN, one token to
// 512, on one thread and on all, beside the int8 peak and the bandwidths measured in the same rounds. Every
// output is compared with an exact reference first. (`trit bench` is the same for one backend.)
//
//   bench_linear --json results/      adds the object "linear" to results/<machine>.json
//   bench_linear --group 128          each layer also with scales for groups of 128 inputs; the object "groups"
//   bench_linear --hybrid             the hybrid kernel of AVX-512 VNNI against product tiles, on one thread
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "bench/lib/limits.h"
#include "bench/lib/linear_benchmark.h"
#include "bench/lib/linear_report.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "trit/error.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;

/// The keys in which results of different cases differ.
constexpr const char* kCaseKeys[] = {"backend",     "layout", "threads",      "out_features",
                                     "in_features", "tokens", "weights_from", "group"};

/// Product tiles and the hybrid kernel in turn (TRIT_HYBRID), beside the int8 peak of the same rounds.
ordered_json compare_hybrid(const bench::LinearBenchmark& options) {
  const auto parallel = make_parallel(1);
  const CpuKernels& kernels = cpu_kernels_for(Backend::avx512_vnni);
  const auto peak = bench::int8_peak(Backend::avx512_vnni);
  if (!peak) {
    throw Error("bench_linear --hybrid: no int8 peak of avx512_vnni here");
  }
  ordered_json results;
  for (const bench::LinearShape& shape : options.shapes) {
    for (const std::int64_t tokens : options.tokens) {
      const bench::LinearCase layer = bench::make_linear_case(shape, tokens, 1, *parallel);
      const PackedLinear packed(kernels, *parallel, layer.weight.view(), PanelFormat::two_bit);
      std::vector<float> y(static_cast<std::size_t>(tokens * shape.out_features));
      const auto run = [&](const char* mode) {
        setenv("TRIT_HYBRID", mode, 1);  // this program has one thread
        packed.product(*parallel, layer.rows(tokens), nullptr, DataType::float32, y.data());
      };
      for (const char* mode : {"off", "on"}) {
        run(mode);
        bench::check_outputs(layer, tokens, y, mode);
      }
      const std::vector<std::function<void()>> subjects{peak->burst, [&] { run("off"); }, [&] { run("on"); }};
      const auto seconds = bench::time_interleaved(subjects, options.timing);
      unsetenv("TRIT_HYBRID");
      const double work = 2.0 * static_cast<double>(shape.out_features * shape.in_features * tokens);
      const double limit = work / peak->operations * bench::median(seconds[0]);
      const double tiles = limit / bench::median(seconds[1]);
      const double hybrid = limit / bench::median(seconds[2]);
      fmt::print("{:>11} {:>4} tokens: tiles {:.3f} of the peak, hybrid {:.3f}: {:.3f}x\n",
                 bench::name_of(shape), tokens, tiles, hybrid, hybrid / tiles);
      results.push_back({{"shape", bench::name_of(shape)},
                         {"tokens", tokens},
                         {"tiles_of_peak", tiles},
                         {"hybrid_of_peak", hybrid}});
    }
  }
  return results;
}

}  // namespace

int bench::run(int argc, char** argv) {
  bench::keep_freed_memory();
  CommandLine app{"Times packed ternary products against the limits of this machine.",
                  "bench_linear --shapes 4096x4096 --tokens 1,128 --json bench/results"};
  std::string json;
  bench::TimingOptions timing;
  std::vector<std::string> names;
  std::vector<int> threads = one_and_all_threads();
  std::vector<std::int64_t> tokens = bench::usual_tokens();
  std::vector<bench::LinearShape> shapes = bench::usual_shapes();
  bool merge = false;
  bool hybrid = false;
  app.add_json(json);
  app.add_option("--backend", names, "backends")
      ->type_name("NAME,...")
      ->delimiter(',')
      ->default_str("all but scalar");
  app.add_threads(threads);
  app.add_tokens(tokens);
  app.add_shapes(shapes);
  app.add_flag("--hybrid", hybrid,
               "compare the hybrid kernel of AVX-512 VNNI with product tiles, and nothing else");
  std::int64_t group = 0;
  app.add_option("--group", group,
                 "measure also with float16 scales for groups of so many inputs, a multiple of 32; 0: not")
      ->type_name("N");
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
  if (hybrid) {
    const ordered_json result = compare_hybrid({{Backend::avx512_vnni}, shapes, tokens, 1, timing});
    if (!json.empty()) {
      bench::store(json, "hybrid", result);
    }
    return 0;
  }
  std::vector<bench::LinearReport> reports;
  for (const int count : threads) {
    const bench::LinearBenchmark options{backends, shapes, tokens, count, timing, 1, group};
    reports.push_back(bench::benchmark_linear(
        options, bench::progress_bar(fmt::format("bench_linear, {} thread(s)", count))));
    fmt::print("{}", bench::table(reports.back()));
  }
  if (!json.empty()) {
    const char* const key = group != 0 ? "groups" : "linear";
    ordered_json all = bench::to_json(reports);
    if (merge) {
      const ordered_json old = stored(json, key);
      for (const char* list : {"limits", "results"}) {
        keep_others(all[list], old.value(list, ordered_json::array()), kCaseKeys);
      }
    }
    bench::store(json, key, all);
  }
  return 0;
}

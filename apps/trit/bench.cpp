// SPDX-License-Identifier: MIT
#include "bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#ifdef TRIT_HAVE_CUDA
#include "bench/lib/gpu_benchmark.h"
#include "bench/lib/gpu_tune.h"
#endif
#include "bench/lib/linear_report.h"
#include "bench/lib/machine.h"
#include "bench/lib/timing.h"
#include "output.h"
#include "trit/error.h"

namespace trit::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kQuickRounds = 5;

bench::LinearBenchmark benchmark_of(const BenchOptions& options, Backend backend, int threads) {
  bench::TimingOptions timing;
  if (options.quick) {
    timing.rounds = kQuickRounds;
  }
  return {.backends = {backend},
          .shapes = options.shapes,
          .tokens = options.tokens,
          .threads = threads,
          .timing = timing,
          .group = options.group};
}

#ifdef TRIT_HAVE_CUDA
void print_tuning(const bench::TuneReport& report) {
  std::string text =
      fmt::format("{}\n{:>12} {:>6}  {:<22} {:>8}  {:<22} {:>8} {:>6} {:>6}\n", report.device, "N x K",
                  "tokens", "plan of the table", "us", "fastest plan", "us", "ratio", "plans");
  double worst = 1;
  for (const bench::TunedProduct& product : report.products) {
    worst = std::max(worst, product.ratio());
    text += fmt::format("{:>12} {:>6}  {:<22} {:>8.2f}  {:<22} {:>8.2f} {:>6.3f} {:>6}\n",
                        bench::name_of(product.shape), product.tokens, product.table_plan,
                        product.table_microseconds, product.best_plan, product.best_microseconds,
                        product.ratio(), product.plans);
  }
  text += fmt::format("time of the table's plan / fastest: geometric mean {:.3f}, maximum {:.3f}; {:.1f} s\n",
                      report.mean_ratio, worst, report.seconds);
  text += report.file.empty() ? "not saved: TRIT_CUDA_TUNING=off, or the cache folder is not writable\n"
                              : fmt::format("saved in {}\n", report.file.string());
  print(text);
}

ordered_json to_json(const bench::TuneReport& report) {
  ordered_json products = ordered_json::array();
  for (const bench::TunedProduct& product : report.products) {
    products.push_back({{"out_features", product.shape.out_features},
                        {"in_features", product.shape.in_features},
                        {"tokens", product.tokens},
                        {"table_plan", product.table_plan},
                        {"table_microseconds", product.table_microseconds},
                        {"best_plan", product.best_plan},
                        {"best_microseconds", product.best_microseconds},
                        {"ratio", product.ratio()},
                        {"plans", product.plans}});
  }
  return {{"backend", name_of(Backend::cuda)},
          {"machine", {{"gpu", report.device}}},
          {"file", report.file.empty() ? ordered_json() : ordered_json(report.file.string())},
          {"mean_ratio", report.mean_ratio},
          {"seconds", report.seconds},
          {"tuned", products}};
}

int run_gpu_tune(const BenchOptions& options) {
  const bench::TuneReport report =
      bench::tune_gpu(benchmark_of(options, Backend::cuda, 1), bench::progress_bar("tuning", "products"));
  if (options.json) {
    print_json(to_json(report));
  } else {
    print_tuning(report);
  }
  return 0;
}

int run_gpu_bench(const BenchOptions& options) {
  if (options.tune) {
    return run_gpu_tune(options);
  }
  const bench::GpuReport measured = bench::benchmark_gpu(benchmark_of(options, Backend::cuda, 1));
  if (options.json) {
    ordered_json all{
        {"backend", name_of(Backend::cuda)},
        {"machine", {{"gpu", measured.device}}},
        {"plans", measured.plans.empty() ? ordered_json("table") : ordered_json(measured.plans)}};
    all.update(bench::to_json(std::span(&measured.report, 1)));
    print_json(all);
  } else {
    print(
        measured.device + ", " + bench::table(measured.report) +
        "\nproduct us: one product of a CUDA graph of many; layer us: RMSNorm, quantisation and product of "
        "fp32"
        "\ninputs. GB/s: packed weights. Weights from memory: more layers in turn than fit into L2. The read"
        "\nbandwidth is measured in the same run; the int8 peak is the nominal one of the GPU. Plans: " +
        (measured.plans.empty() ? "the table's" : measured.plans) + ".\n");
  }
  return 0;
}
#else
int run_gpu_bench(const BenchOptions&) {
  throw Error(
      "backend 'cuda': this build has no CUDA (build with make build CUDA=ON, or cmake -DTRIT_CUDA=ON)");
}
#endif

}  // namespace

std::vector<bench::LinearShape> quick_shapes() { return {{4096, 4096}, {512, 4096}, {10, 512}}; }
std::vector<std::int64_t> quick_tokens() { return {1, 8, 128}; }

int run_bench(const BenchOptions& options) {
  bench::keep_freed_memory();
  if (options.group != 0 && !is_group_size(options.group)) {
    throw Error(
        fmt::format("--group: groups of {} inputs, wanted a multiple of {}", options.group, kGroupStep));
  }
  const bench::Machine machine = bench::this_machine();
  if (requested_backend(options.backend) == Backend::cuda) {
    if (options.group != 0 && options.tune) {
      throw Error("--group: wanted no --tune, whose plans are of products without group scales");
    }
    return run_gpu_bench(options);
  }
  if (options.tune) {
    throw Error(
        "--tune needs --backend cuda, the only backend that is tuned (layouts for a CPU are chosen without "
        "it)");
  }
  const Backend backend = backend_of(cpu_kernels_for(options.backend));
  std::vector<int> threads{1};
  if (options.threads) {
    threads = {*options.threads == 0 ? machine.cores : *options.threads};
  } else if (machine.cores > 1) {
    threads.push_back(machine.cores);
  }
  if (!options.json) {
    print(fmt::format("{}, {} cores, {}\n", machine.cpu, machine.cores, machine.compiler));
  }
  std::vector<bench::LinearReport> reports;
  for (const int count : threads) {
    const std::string title = fmt::format("bench, {} thread{}", count, count == 1 ? "" : "s");
    reports.push_back(
        bench::benchmark_linear(benchmark_of(options, backend, count), bench::progress_bar(title)));
    if (!options.json) {
      print("\n" + bench::table(reports.back()));
    }
  }
  if (options.json) {
    ordered_json all{
        {"backend", name_of(backend)},
        {"machine", {{"cpu", machine.cpu}, {"cores", machine.cores}, {"compiler", machine.compiler}}}};
    all.update(bench::to_json(reports));
    print_json(all);
  } else {
    print("\n" + bench::legend());
  }
  return 0;
}

}  // namespace trit::cli

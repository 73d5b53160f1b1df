// SPDX-License-Identifier: MIT
//
// Which layout of the weights decodes faster, and which one is chosen: layers and models of several sizes,
// one token, on one thread and on all. A model's layers are read one after the other, as in decoding. The
// ratio is the time of the faster layout over that of the chosen one, from the same rounds: 1 if the choice
// was right.
//
//   bench_layouts --json layouts.json
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "bench/lib/linear_case.h"
#include "bench/lib/program.h"
#include "bench/lib/report.h"
#include "bench/lib/timing.h"
#include "trit/error.h"
#include "trit/layout.h"

using namespace trit;

namespace {

using nlohmann::ordered_json;

/// `layers` layers of one shape.
struct Size {
  std::string name;
  std::int64_t layers;
  bench::LinearShape shape;
};

/// Bytes at 2 bits a weight: 8 to 128 MB in one layer, then models.
std::vector<Size> usual_sizes() {
  return {{"1 layer of 8 MB", 1, {4096, 8192}},      {"1 layer of 32 MB", 1, {8192, 16384}},
          {"1 layer of 64 MB", 1, {16384, 16384}},   {"1 layer of 128 MB", 1, {32768, 16384}},
          {"30 layers of 1.6 MB", 30, {2560, 2560}}, {"24 layers of 4 MB", 24, {4096, 4096}},
          {"30 layers of 0.3 MB", 30, {1024, 1280}}};
}

/// A size parsed from "30x2560x2560".
Size size_from_name(const std::string& text) {
  const std::size_t end = text.find('x');
  if (end == std::string::npos) {
    throw Error("size '" + text + "', wanted LAYERSxNxK");
  }
  return {text, std::stoll(text.substr(0, end)), bench::shape_from_name(text.substr(end + 1))};
}

/// How fast weights are read depends on the pages that they got, and how much of a last cache that others use
/// as well. Every second allocation is made in the reverse order of layouts, so that each gets the other's
/// pages.
constexpr int kAllocations = 4;

std::vector<PackedLinear> prepare(const CpuKernels& kernels, Parallel& parallel, std::int64_t layers,
                                  const TernaryView& weight, PanelFormat format, bool lone) {
  const std::vector<TernaryView> weights(static_cast<std::size_t>(layers), weight);
  if (!lone) {
    return PackedLinear::prepare(kernels, parallel, weights, format);
  }
  std::vector<PackedLinear> model;
  for (const TernaryView& one : weights) {
    model.emplace_back(kernels, parallel, one, format);
  }
  return model;
}

ordered_json measure(const CpuKernels& kernels, int threads, const Size& size,
                     const bench::TimingOptions& timing, bool lone) {
  const auto parallel = make_parallel(threads);
  const bench::LinearCase layer = bench::make_linear_case(size.shape, 1, 1, *parallel);
  const std::vector<PanelFormat> formats = available_formats(kernels);
  const auto two_bit_bytes = size.layers * static_cast<std::int64_t>(layer.weight.codes.size());
  const LayoutChoice choice = choose_layout(kernels, *parallel, two_bit_bytes);
  std::vector<float> y(static_cast<std::size_t>(size.shape.out_features));
  std::vector<std::vector<double>> seconds(formats.size());
  for (int allocation = 0; allocation < kAllocations; ++allocation) {
    std::vector<std::vector<PackedLinear>> models(formats.size());
    std::vector<std::function<void()>> subjects;
    for (std::size_t n = 0; n < formats.size(); ++n) {
      const std::size_t i = allocation % 2 == 0 ? n : formats.size() - 1 - n;
      models[i] = prepare(kernels, *parallel, size.layers, layer.weight.view(), formats[i], lone);
    }
    for (const auto& model : models) {
      subjects.emplace_back([&] {
        for (const PackedLinear& packed : model) {
          packed.product(*parallel, layer.rows(1), nullptr, DataType::float32, y.data());
        }
      });
      subjects.back()();
      bench::check_outputs(layer, 1, y, name_of(backend_of(kernels)));
    }
    const auto measured = bench::time_interleaved(subjects, timing);
    for (std::size_t i = 0; i < formats.size(); ++i) {
      seconds[i].insert(seconds[i].end(), measured[i].begin(), measured[i].end());
    }
  }
  ordered_json result{{"size", size.name},
                      {"threads", threads},
                      {"layers", size.layers},
                      {"shape", bench::name_of(size.shape)},
                      {"two_bit_bytes", two_bit_bytes},
                      {"chosen", name_of(choice.format)},
                      {"why", choice.why}};
  double best = 1e30;
  double chosen = 0;
  for (std::size_t i = 0; i < formats.size(); ++i) {
    const double time = bench::median(seconds[i]);
    result[std::string(name_of(formats[i])) + "_microseconds"] = time * 1e6;
    best = std::min(best, time);
    chosen = formats[i] == choice.format ? time : chosen;
  }
  result["ratio"] = best / chosen;
  std::string times;
  for (const PanelFormat format : formats) {
    times += fmt::format(" {:>8} {:>9.1f} us", name_of(format),
                         result[std::string(name_of(format)) + "_microseconds"].get<double>());
  }
  fmt::print("{:<20} {:>2} threads {} chosen {:>8}, {:.3f} of the faster one's speed ({})\n", size.name,
             threads, times, name_of(choice.format), best / chosen, choice.why);
  std::fflush(stdout);
  return result;
}

}  // namespace

int bench::run(int argc, char** argv) {
  bench::keep_freed_memory();
  CommandLine app{"Times decoding (one token) with each layout of the weights, and shows the chosen one.",
                  "bench_layouts --sizes 30x2560x2560 --threads 1 --json layouts.json"};
  std::string json;
  std::string backend = "auto";
  std::vector<int> threads = one_and_all_threads();
  std::vector<std::string> names;
  // Long batches: the first pass of each finds the caches full of the other layout.
  bench::TimingOptions timing{.rounds = 7, .seconds_per_batch = 0.04};
  bool lone = false;
  app.add_json(json, "file to write");
  app.add_backend(backend);
  app.add_threads(threads);
  app.add_option("--sizes", names, "models, as layers x outputs x inputs")
      ->type_name("LxNxK,...")
      ->delimiter(',')
      ->default_str("single layers of 8 to 128 MB and three models");
  app.add_flag("--lone", lone, "prepare every layer by itself, not the layers of a model together");
  app.add_rounds(timing);
  CLI11_PARSE(app, argc, argv);
  std::vector<Size> sizes = usual_sizes();
  if (!names.empty()) {
    sizes.clear();
    std::transform(names.begin(), names.end(), std::back_inserter(sizes), size_from_name);
  }
  const CpuKernels& kernels = cpu_kernels_for(backend_from_name(backend));
  ordered_json all{{"machine", bench::to_json(bench::this_machine())},
                   {"backend", name_of(backend_of(kernels))},
                   {"results", ordered_json::array()}};
  for (const int count : threads) {
    for (const Size& size : sizes) {
      all["results"].push_back(measure(kernels, count, size, timing, lone));
    }
  }
  if (!json.empty()) {
    write_json(json, all);
  }
  return 0;
}

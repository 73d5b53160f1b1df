// SPDX-License-Identifier: MIT
#include "bench/lib/linear_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>

#include "bench/lib/limits.h"
#include "bench/lib/memory_read.h"
#include "trit/cpu_caches.h"
#include "trit/error.h"
#include "trit/layout.h"
#include "trit/linear.h"

namespace trit::bench {
namespace {

/// If the system does not report the sizes of the caches.
constexpr std::int64_t kUsualL2 = 1 << 20;
constexpr std::int64_t kUsualL3 = 32 << 20;
/// Rotated layers, and the buffer for the bandwidth, are this many times the last cache.
constexpr std::int64_t kBeyondCache = 3;
/// One bandwidth run reads this much of its buffer, in a few milliseconds.
constexpr std::size_t kMemorySlice = std::size_t{64} << 20;

/// Where the weights of a shape are measured from.
struct Sources {
  bool cache;
  bool memory;
};

using Copies = std::vector<PackedLinear>;

/// One timed layer.
struct Case {
  const LinearCase* layer;
  std::shared_ptr<const Copies> copies;  // one, or more than fit into the caches
  LinearResult result;
  std::size_t next = 0;

  const PackedLinear& turn() {
    const PackedLinear& packed = (*copies)[next];
    next = next + 1 == copies->size() ? 0 : next + 1;
    return packed;
  }
};

/// The outputs of norm_quant, and of a product.
struct Scratch {
  AlignedVector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int32_t> q_sum;
  AlignedVector<float> y;

  explicit Scratch(const LinearCase& layer)
      : q(static_cast<std::size_t>(layer.tokens * padded_in_features(layer.shape.in_features))),
        scale(static_cast<std::size_t>(layer.tokens)),
        q_sum(static_cast<std::size_t>(layer.tokens)),
        y(static_cast<std::size_t>(layer.tokens * layer.shape.out_features)) {}
  QuantizedRows rows(std::int64_t tokens) const { return {q.data(), scale.data(), q_sum.data(), tokens}; }
};

void quantise(const CpuKernels& kernels, Parallel& parallel, const LinearCase& layer, std::int64_t tokens,
              Scratch& out) {
  norm_quant(kernels, parallel,
             {.x = layer.x.data(),
              .tokens = tokens,
              .in_features = layer.shape.in_features,
              .x_stride = layer.shape.in_features,
              .norm = Norm::rms,
              .norm_weight = layer.norm_weight.data(),
              .q = out.q.data(),
              .scale = out.scale.data(),
              .q_sum = out.q_sum.data()});
}

void check_front(const CpuKernels& kernels, Parallel& parallel, const LinearCase& layer) {
  const std::int64_t tokens = std::min(layer.tokens, kDistinctTokens);
  Scratch wanted(layer);
  Scratch got(layer);
  quantise(cpu_kernels_for(Backend::scalar), parallel, layer, tokens, wanted);
  quantise(kernels, parallel, layer, tokens, got);
  if (got.q != wanted.q || got.q_sum != wanted.q_sum ||
      std::memcmp(got.scale.data(), wanted.scale.data(), sizeof(float) * got.scale.size()) != 0) {
    throw Error(fmt::format("{}: norm and quantisation of {} inputs differ from scalar",
                            name_of(backend_of(kernels)), layer.shape.in_features));
  }
}

/// The time of a limit: whatever else the machine does can only add to it.
double min_of(const std::vector<double>& seconds) {
  return *std::min_element(seconds.begin(), seconds.end());
}

/// A product that is faster than its limit by more than noise shows that the limit is wrong.
constexpr double kMaxShare = 1.03;

class Benchmark {
 public:
  Benchmark(const LinearBenchmark& options, Parallel& parallel, const TimingProgress& progress)
      : options_(options), parallel_(parallel), progress_(progress) {
    const CpuCaches& caches = cpu_caches();
    l2_ = caches.l2.bytes > 0 ? caches.l2.bytes : kUsualL2;
    l3_ = std::max(caches.l3.bytes > 0 ? caches.last_bytes(options.threads) : kUsualL3, l2_);
    max_tokens_ = *std::max_element(options.tokens.begin(), options.tokens.end());
    memory_ =
        std::make_unique<MemoryRead>(parallel, static_cast<std::size_t>(kBeyondCache * l3_), kMemorySlice);
    for (const LinearShape shape : options.shapes) {
      total_ += subjects_of(shape) * options.timing.rounds;
    }
    peak_seconds_.resize(options.backends.size());
  }

  LinearReport run() {
    LinearReport report{options_.threads, 0, {}, {}};
    for (const LinearShape shape : options_.shapes) {
      measure(shape, report);
    }
    report.memory_gigabytes_per_second =
        static_cast<double>(memory_->bytes()) / min_of(memory_seconds_) / 1e9;
    for (std::size_t b = 0; b < options_.backends.size(); ++b) {
      BackendLimits limits{options_.backends[b], {}, 0};
      if (const auto peak = int8_peak(limits.backend)) {
        limits.instruction = peak->instruction;
        limits.gops = peak->operations * parallel_.threads() / min_of(peak_seconds_[b]) / 1e9;
      }
      report.limits.push_back(limits);
    }
    return report;
  }

 private:
  Sources sources_of(LinearShape shape) const {
    const std::int64_t bytes = shape.out_features * packed_row_bytes(shape.in_features);
    return {bytes <= l3_ / 2, bytes > l2_};
  }

  // Products and layers, the memory's bandwidth, the cache's, the peaks.
  std::int64_t subjects_of(LinearShape shape) const {
    const Sources sources = sources_of(shape);
    std::int64_t layouts = 0;
    for (const Backend backend : options_.backends) {
      layouts += options_.group != 0
                     ? 2
                     : static_cast<std::int64_t>(available_formats(cpu_kernels_for(backend)).size());
    }
    const std::int64_t cases = layouts * static_cast<std::int64_t>(options_.tokens.size()) *
                               ((sources.cache ? 1 : 0) + (sources.memory ? 1 : 0));
    return 2 * cases + 2 + static_cast<std::int64_t>(options_.backends.size());
  }

  void measure(LinearShape shape, LinearReport& report) {
    const LinearCase layer = make_linear_case(shape, max_tokens_, options_.seed, parallel_, options_.group);
    std::vector<Case> cases;
    for (const Backend backend : options_.backends) {
      check_front(cpu_kernels_for(backend), parallel_, layer);
      const std::vector<PanelFormat> formats = available_formats(cpu_kernels_for(backend));
      if (options_.group != 0) {
        add_cases(backend, formats.front(), layer.weight, layer, cases);
        add_cases(backend, formats.front(), layer.grouped, layer, cases);
        continue;
      }
      for (const PanelFormat format : formats) {
        add_cases(backend, format, layer.weight, layer, cases);
      }
    }
    Scratch scratch(layer);
    for (const Case& item : cases) {
      check(item, scratch);
    }
    MemoryRead cache(parallel_, layer.weight.codes.size());

    std::vector<std::function<void()>> subjects;
    for (Case& item : cases) {
      subjects.emplace_back([&] {
        item.turn().product(parallel_, layer.rows(item.result.tokens), nullptr, DataType::float32,
                            scratch.y.data());
      });
      subjects.emplace_back([&] {
        const PackedLinear& packed = item.turn();
        quantise(packed.kernels(), parallel_, layer, item.result.tokens, scratch);
        packed.product(parallel_, scratch.rows(item.result.tokens), nullptr, DataType::float32,
                       scratch.y.data());
      });
    }
    subjects.emplace_back([&] { memory_->run(); });
    subjects.emplace_back([&] { cache.run(); });
    for (const Backend backend : options_.backends) {
      subjects.emplace_back([this, peak = int8_peak(backend)] {
        if (peak) {
          parallel_.run(parallel_.threads(), [&](std::int64_t /*thread*/) { peak->burst(); });
        }
      });
    }
    const auto seconds = time_interleaved(subjects, options_.timing, [this](std::int64_t, std::int64_t) {
      ++done_;
      if (progress_) {
        progress_(done_, total_);
      }
    });

    const std::size_t limits = 2 * cases.size();
    memory_seconds_.insert(memory_seconds_.end(), seconds[limits].begin(), seconds[limits].end());
    for (std::size_t b = 0; b < options_.backends.size(); ++b) {
      const std::vector<double>& peak = seconds[limits + 2 + b];
      peak_seconds_[b].insert(peak_seconds_[b].end(), peak.begin(), peak.end());
      for (std::size_t i = 0; i < cases.size(); ++i) {
        if (cases[i].result.backend == options_.backends[b]) {
          const bool from_memory = cases[i].result.from == WeightsFrom::memory;
          finish(cases[i].result, seconds[2 * i], seconds[2 * i + 1], peak,
                 seconds[limits + (from_memory ? 0 : 1)],
                 static_cast<double>(from_memory ? memory_->bytes() : cache.bytes()));
          compare_with_ungrouped(cases, i, seconds);
          report.results.push_back(cases[i].result);
        }
      }
    }
  }

  // `seconds` [2 * cases][rounds]; the same case without groups comes earlier.
  static void compare_with_ungrouped(std::vector<Case>& cases, std::size_t at,
                                     const std::vector<std::vector<double>>& seconds) {
    LinearResult& result = cases[at].result;
    const auto other = std::ranges::find_if(cases, [&](const Case& item) {
      return item.result.group == 0 && item.result.backend == result.backend &&
             item.result.tokens == result.tokens && item.result.from == result.from;
    });
    if (result.group == 0 || other == cases.end()) {
      return;
    }
    const auto without = static_cast<std::size_t>(other - cases.begin());
    std::vector<double> ratios(seconds[2 * at].size());
    std::ranges::transform(seconds[2 * without], seconds[2 * at], ratios.begin(), std::divides<>());
    result.of_ungrouped = median(ratios);
  }

  void add_cases(Backend backend, PanelFormat format, const TernaryMatrix& weight, const LinearCase& layer,
                 std::vector<Case>& cases) {
    const CpuKernels& kernels = cpu_kernels_for(backend);
    // Prepared together, as the layers of a model are.
    const auto copies_of = [&](std::int64_t count) {
      const std::vector<TernaryView> weights(static_cast<std::size_t>(count), weight.view());
      return std::make_shared<Copies>(PackedLinear::prepare(kernels, parallel_, weights, format));
    };
    const auto is_chosen = [&](const Copies& copies) {
      const std::int64_t bytes = std::ssize(copies) * std::ssize(layer.weight.codes);
      return choose_layout(kernels, parallel_, bytes).format == format;
    };
    const auto one = copies_of(1);
    const Sources sources = sources_of(layer.shape);
    const auto many =
        sources.memory ? copies_of(kBeyondCache * l3_ / static_cast<std::int64_t>(one->front().bytes()) + 1)
                       : one;
    for (const std::int64_t tokens : options_.tokens) {
      const LinearResult result{.backend = backend,
                                .format = one->front().format(),
                                .shape = layer.shape,
                                .tokens = tokens,
                                .from = WeightsFrom::cache,
                                .weight_bytes = one->front().bytes(),
                                .microseconds = 0,
                                .layer_microseconds = 0,
                                .gops = 0,
                                .weight_gigabytes_per_second = 0,
                                .read_gigabytes_per_second = 0,
                                .share = {},
                                .limit = {},
                                .group = weight.group};
      if (sources.cache) {
        cases.push_back({&layer, one, result});
        cases.back().result.chosen = is_chosen(*one);
      }
      if (sources.memory) {
        cases.push_back({&layer, many, result});
        cases.back().result.from = WeightsFrom::memory;
        cases.back().result.chosen = is_chosen(*many);
      }
    }
  }

  // The copies are the same bytes: the first is checked at every M, the others once.
  void check(const Case& item, Scratch& scratch) {
    const std::int64_t tokens = item.result.tokens;
    const bool all = tokens == *std::min_element(options_.tokens.begin(), options_.tokens.end());
    const std::size_t count = all ? item.copies->size() : 1;
    for (std::size_t i = 0; i < count; ++i) {
      std::fill(scratch.y.begin(), scratch.y.end(), -1.0F);
      (*item.copies)[i].product(parallel_, item.layer->rows(tokens), nullptr, DataType::float32,
                                scratch.y.data());
      check_outputs(*item.layer, tokens, scratch.y, name_of(item.result.backend), item.result.group != 0);
    }
  }

  void finish(LinearResult& result, const std::vector<double>& product, const std::vector<double>& layer,
              const std::vector<double>& peak_seconds, const std::vector<double>& read_seconds,
              double read_bytes) {
    const double operations = 2.0 * static_cast<double>(result.tokens) *
                              static_cast<double>(result.shape.out_features) *
                              static_cast<double>(result.shape.in_features);
    const double time = median(product);
    const auto bytes = static_cast<double>(result.weight_bytes);
    result.microseconds = time * 1e6;
    result.layer_microseconds = median(layer) * 1e6;
    result.gops = operations / time / 1e9;
    result.weight_gigabytes_per_second = bytes / time / 1e9;
    result.read_gigabytes_per_second = read_bytes / min_of(read_seconds) / 1e9;
    const double by_read = bytes / read_bytes * min_of(read_seconds) / time;
    double by_peak = 0;
    if (const auto peak = int8_peak(result.backend)) {
      by_peak = operations / (peak->operations * parallel_.threads()) * min_of(peak_seconds) / time;
    }
    if (const double share = std::max(by_read, by_peak); share <= kMaxShare) {
      result.share = share;
    }
    result.limit = by_peak >= by_read                   ? "int8 peak"
                   : result.from == WeightsFrom::memory ? "memory read"
                                                        : "cache read";
  }

  const LinearBenchmark& options_;
  Parallel& parallel_;
  const TimingProgress& progress_;
  std::int64_t l2_ = 0;
  std::int64_t l3_ = 0;
  std::int64_t max_tokens_ = 0;
  std::int64_t done_ = 0;
  std::int64_t total_ = 0;
  std::unique_ptr<MemoryRead> memory_;
  std::vector<double> memory_seconds_;             // of all rounds of all shapes
  std::vector<std::vector<double>> peak_seconds_;  // likewise, by backend
};

}  // namespace

std::string_view name_of(WeightsFrom from) { return from == WeightsFrom::cache ? "cache" : "memory"; }

std::vector<LinearShape> usual_shapes() {
  return {{2560, 2560},  {6912, 2560},  {2560, 6912}, {4096, 4096},
          {14336, 4096}, {4096, 14336}, {512, 4096},  {10, 512}};
}

std::vector<std::int64_t> usual_tokens() { return {1, 4, 8, 32, 128, 512}; }

LinearReport benchmark_linear(const LinearBenchmark& options, const TimingProgress& progress) {
  if (options.backends.empty() || options.shapes.empty() || options.tokens.empty()) {
    throw Error("benchmark: no backend, no shape or no number of tokens to measure");
  }
  for (const LinearShape shape : options.shapes) {
    if (shape.out_features < 1 || shape.in_features < 1) {
      throw Error(
          fmt::format("benchmark: shape {}x{}, wanted at least 1x1", shape.out_features, shape.in_features));
    }
  }
  if (options.group != 0 && !is_group_size(options.group)) {
    throw Error(
        fmt::format("benchmark: groups of {} inputs, wanted a multiple of {}", options.group, kGroupStep));
  }
  if (*std::min_element(options.tokens.begin(), options.tokens.end()) < 1) {
    throw Error("benchmark: the number of tokens must be at least 1");
  }
  const auto parallel = make_parallel(options.threads);
  return Benchmark(options, *parallel, progress).run();
}

}  // namespace trit::bench

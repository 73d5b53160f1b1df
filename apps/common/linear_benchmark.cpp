// SPDX-License-Identifier: MIT
#include "common/linear_benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <random>

#include "common/aligned_vector.h"
#include "common/limits.h"
#include "common/machine.h"
#include "trit/error.h"
#include "trit/linear.h"

namespace trit::apps {
namespace {

/// Where the system does not say how large the caches are.
constexpr std::int64_t kUsualL2 = 1 << 20;
constexpr std::int64_t kUsualL3 = 32 << 20;
/// Layers that are rotated, and the buffer of the bandwidth, are this many times the last cache.
constexpr std::int64_t kBeyondCache = 3;

/// One shape: random weights and activations, and the sums that every backend must give.
struct Layer {
  LinearShape shape;
  TernaryMatrix weight;
  std::int64_t tokens;              // the largest M; smaller ones take the first rows
  AlignedVector<std::int8_t> q;     // [tokens, padded K]
  std::vector<float> scale;         // [tokens]
  std::vector<std::int32_t> q_sum;  // [tokens]
  std::vector<float> expected;      // [tokens, N]
};

Layer make_layer(LinearShape shape, std::int64_t tokens, std::uint64_t seed, Parallel& parallel) {
  std::mt19937_64 random(seed);
  const std::int64_t padded = padded_in_features(shape.in_features);
  const std::int64_t row_bytes = packed_row_bytes(shape.in_features);
  Layer layer{shape, {shape.out_features, shape.in_features, {}, {0.037F}}, tokens, {}, {}, {}, {}};
  std::vector<std::int8_t> t(static_cast<std::size_t>(shape.out_features * shape.in_features));
  std::generate(t.begin(), t.end(),
                [&] { return static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1); });
  layer.weight.codes.resize(static_cast<std::size_t>(shape.out_features * row_bytes));
  for (std::int64_t row = 0; row < shape.out_features; ++row) {
    pack_row({t.data() + row * shape.in_features, static_cast<std::size_t>(shape.in_features)},
             {layer.weight.codes.data() + row * row_bytes, static_cast<std::size_t>(row_bytes)});
  }
  layer.q.resize(static_cast<std::size_t>(tokens * padded));
  layer.scale.assign(static_cast<std::size_t>(tokens), 0.011F);
  layer.q_sum.resize(static_cast<std::size_t>(tokens));
  layer.expected.resize(static_cast<std::size_t>(tokens * shape.out_features));
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t k = 0; k < shape.in_features; ++k) {
      const auto code = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
      layer.q[static_cast<std::size_t>(token * padded + k)] = code;
      layer.q_sum[static_cast<std::size_t>(token)] += code;
    }
  }
  parallel.run(shape.out_features, [&](std::int64_t row) {
    for (std::int64_t token = 0; token < tokens; ++token) {
      const std::int8_t* q = layer.q.data() + token * padded;
      const std::int8_t* weights = t.data() + row * shape.in_features;
      std::int32_t acc = 0;
      for (std::int64_t k = 0; k < shape.in_features; ++k) {
        acc += q[k] * weights[k];
      }
      layer.expected[static_cast<std::size_t>(token * shape.out_features + row)] =
          epilogue(acc, layer.scale[static_cast<std::size_t>(token)], layer.weight.scale[0], nullptr);
    }
  });
  return layer;
}

/// One timed product.
struct Case {
  const Layer* layer;
  std::shared_ptr<const std::vector<PackedLinear>> copies;  // one, or enough to leave the caches
  LinearResult result;
};

QuantizedRows rows_of(const Layer& layer, std::int64_t tokens) {
  return {layer.q.data(), layer.scale.data(), layer.q_sum.data(), tokens};
}

void check(const Case& item, Parallel& parallel) {
  const Layer& layer = *item.layer;
  const std::int64_t outputs = item.result.tokens * layer.shape.out_features;
  std::vector<float> y(static_cast<std::size_t>(outputs));
  for (const PackedLinear& packed : *item.copies) {
    packed.product(parallel, rows_of(layer, item.result.tokens), nullptr, DataType::float32, y.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(layer.expected[i])) {
        const auto at = static_cast<std::int64_t>(i);
        throw Error(fmt::format("{} {}x{}: output {} of token {} is {}, the reference is {}",
                                name_of(item.result.backend), layer.shape.out_features,
                                layer.shape.in_features, at % layer.shape.out_features,
                                at / layer.shape.out_features, y[i], layer.expected[i]));
      }
    }
  }
}

class Benchmark {
 public:
  Benchmark(const LinearBenchmark& options, Parallel& parallel) : options_(options), parallel_(parallel) {
    const Machine machine = this_machine();
    l2_ = machine.l2_bytes > 0 ? machine.l2_bytes : kUsualL2;
    l3_ = std::max(machine.l3_bytes > 0 ? machine.l3_bytes : kUsualL3, l2_);
    const std::int64_t tokens = *std::max_element(options.tokens.begin(), options.tokens.end());
    layers_.reserve(options.shapes.size());
    for (const LinearShape shape : options.shapes) {
      layers_.push_back(make_layer(shape, tokens, options.seed, parallel));
    }
    for (const Backend backend : options.backends) {
      for (const Layer& layer : layers_) {
        add_cases(backend, layer);
      }
    }
    y_.resize(static_cast<std::size_t>(
        tokens * std::max_element(options.shapes.begin(), options.shapes.end(), [](auto a, auto b) {
                   return a.out_features < b.out_features;
                 })->out_features));
  }

  LinearReport run(const TimingProgress& progress) {
    for (const Case& item : cases_) {
      check(item, parallel_);
    }
    MemoryRead memory(parallel_, static_cast<std::size_t>(kBeyondCache * l3_));
    std::vector<std::function<void()>> subjects;
    for (Case& item : cases_) {
      subjects.emplace_back([this, &item, next = std::size_t{0}]() mutable {
        (*item.copies)[next].product(parallel_, rows_of(*item.layer, item.result.tokens), nullptr,
                                     DataType::float32, y_.data());
        next = next + 1 == item.copies->size() ? 0 : next + 1;
      });
    }
    subjects.emplace_back([&] { memory.run(); });
    for (const Backend backend : options_.backends) {
      const auto peak = int8_peak(backend);
      subjects.emplace_back([this, peak] {
        if (peak) {
          parallel_.run(parallel_.threads(), [&](std::int64_t /*thread*/) { peak->burst(); });
        }
      });
    }
    return report(time_interleaved(subjects, options_.timing, progress), memory.bytes());
  }

 private:
  void add_cases(Backend backend, const Layer& layer) {
    const CpuKernels& kernels = cpu_kernels_for(backend);
    const auto copies_of = [&](std::int64_t count) {
      auto copies = std::make_shared<std::vector<PackedLinear>>();
      for (std::int64_t i = 0; i < count; ++i) {
        copies->emplace_back(kernels, parallel_, layer.weight.view());
      }
      return copies;
    };
    const auto one = copies_of(1);
    const auto bytes = static_cast<std::int64_t>(one->front().bytes());
    const bool from_memory = bytes > l2_;
    const bool from_cache = bytes <= l3_ / 2;
    const auto many = from_memory ? copies_of(kBeyondCache * l3_ / bytes + 1) : one;
    for (const std::int64_t tokens : options_.tokens) {
      LinearResult result{backend, layer.shape, tokens, WeightsFrom::cache, one->front().bytes(), 0, 0,
                          0,       {},          {}};
      if (from_cache) {
        cases_.push_back({&layer, one, result});
      }
      if (from_memory) {
        result.from = WeightsFrom::memory;
        cases_.push_back({&layer, many, result});
      }
    }
  }

  LinearReport report(const std::vector<std::vector<double>>& seconds, std::size_t memory_bytes) {
    const std::vector<double>& memory = seconds[cases_.size()];
    LinearReport report{options_.threads, static_cast<double>(memory_bytes) / median(memory) / 1e9, {}, {}};
    for (std::size_t b = 0; b < options_.backends.size(); ++b) {
      BackendLimits limits{options_.backends[b], {}, 0};
      const auto peak = int8_peak(limits.backend);
      const std::vector<double>& peak_seconds = seconds[cases_.size() + 1 + b];
      if (peak) {
        limits.instruction = peak->instruction;
        limits.gops = peak->operations * parallel_.threads() / median(peak_seconds) / 1e9;
      }
      report.limits.push_back(limits);
      for (std::size_t i = 0; i < cases_.size(); ++i) {
        if (cases_[i].result.backend == limits.backend) {
          finish(cases_[i].result, seconds[i], peak, peak_seconds, static_cast<double>(memory_bytes), memory);
          report.results.push_back(cases_[i].result);
        }
      }
    }
    return report;
  }

  void finish(LinearResult& result, const std::vector<double>& seconds, const std::optional<Int8Peak>& peak,
              const std::vector<double>& peak_seconds, double memory_bytes,
              const std::vector<double>& memory) {
    const double operations = 2.0 * static_cast<double>(result.tokens) *
                              static_cast<double>(result.shape.out_features) *
                              static_cast<double>(result.shape.in_features);
    const double time = median(seconds);
    result.microseconds = time * 1e6;
    result.gops = operations / time / 1e9;
    result.weight_gigabytes_per_second = static_cast<double>(result.weight_bytes) / time / 1e9;
    std::vector<double> by_peak;
    std::vector<double> by_memory;
    for (std::size_t round = 0; round < seconds.size(); ++round) {
      const double peak_operations = peak ? peak->operations * parallel_.threads() : 0;
      by_peak.push_back(peak ? operations / peak_operations * peak_seconds[round] / seconds[round] : 0);
      by_memory.push_back(result.from == WeightsFrom::memory
                              ? static_cast<double>(result.weight_bytes) / memory_bytes * memory[round] /
                                    seconds[round]
                              : 0);
    }
    const double peak_share = median(by_peak);
    const double memory_share = median(by_memory);
    if (peak || result.from == WeightsFrom::memory) {
      result.share = std::max(peak_share, memory_share);
      result.limit = peak_share >= memory_share ? "int8 peak" : "memory read";
    }
  }

  const LinearBenchmark& options_;
  Parallel& parallel_;
  std::int64_t l2_ = 0;
  std::int64_t l3_ = 0;
  std::vector<Layer> layers_;
  std::vector<Case> cases_;
  AlignedVector<float> y_;
};

}  // namespace

std::string_view name_of(WeightsFrom from) { return from == WeightsFrom::cache ? "cache" : "memory"; }

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
  if (*std::min_element(options.tokens.begin(), options.tokens.end()) < 1) {
    throw Error("benchmark: the number of tokens must be at least 1");
  }
  const auto parallel = make_parallel(options.threads);
  return Benchmark(options, *parallel).run(progress);
}

}  // namespace trit::apps

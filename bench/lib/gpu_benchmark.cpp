// SPDX-License-Identifier: MIT
#include "bench/lib/gpu_benchmark.h"

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "bench/lib/gpu_layer.h"
#include "bench/lib/gpu_read.h"
#include "bench/lib/gpu_timing.h"
#include "cuda/autotune/tuning.h"
#include "runtime/cuda/device.h"

namespace trit::bench {
namespace {

namespace gpu = runtime::gpu;

/// Launches in one graph: enough to hide the graph's own start.
constexpr int kLaunches = 50;

/// int8 operations of one multiprocessor and cycle, dense; a multiply-add is two. 0: not known here.
double operations_per_cycle(int compute_capability) {
  switch (compute_capability) {
    case 80:
      return 4096;
    case 86:
    case 89:
      return 2048;
    case 90:
      return 8192;
    default:
      return 0;
  }
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  gpu::check(cudaDeviceGetAttribute(&value, which, 0), "an attribute of GPU 0");
  return value;
}

class GpuBenchmark {
 public:
  GpuBenchmark(const LinearBenchmark& options, const TimingProgress& progress)
      : options_(options),
        progress_(progress),
        gpu_(gpu::find_gpu()),
        plans_(gpu_.name, gpu_.device),
        parallel_(make_parallel(0)) {
    stream_ = gpu::make_stream();
    sink_ = gpu::allocate_device(sizeof(std::uint32_t), "a sink");
    peak_ = operations_per_cycle(gpu_.device.compute_capability) * gpu_.device.multiprocessors *
            attribute(cudaDevAttrClockRate) * 1e3;
  }

  GpuReport run() {
    LinearReport report{1, 0, {}, {}};
    {
      const std::size_t bytes = bytes_to_read();
      const gpu::DeviceMemory memory = gpu::allocate_device(bytes, "a buffer to read");
      const double seconds = time([&](int) { read(memory.get(), bytes); }, 4);
      memory_bandwidth_ = static_cast<double>(bytes) / seconds;
    }
    report.memory_gigabytes_per_second = memory_bandwidth_ / 1e9;
    report.limits.push_back({Backend::cuda, peak_ > 0 ? "int8 tensor cores (nominal)" : "", peak_ / 1e9});
    std::int64_t done = 0;
    for (const LinearShape shape : options_.shapes) {
      measure(shape, report);
      if (progress_) {
        progress_(++done, static_cast<std::int64_t>(options_.shapes.size()));
      }
    }
    return {gpu_.name, plans_.source(), std::move(report)};
  }

 private:
  cuda::Stream stream() const { return stream_.get(); }
  void read(const void* data, std::size_t bytes) {
    read_on_gpu(data, bytes, sink_.get(), gpu_.device.multiprocessors, stream());
  }

  /// Seconds of one launch(i), i counting up: medians over graphs of `launches` of them.
  std::vector<double> time(std::span<const std::function<void(int)>> calls, int launches) {
    std::vector<LaunchGraph> graphs;
    for (const auto& launch : calls) {
      launch(0);
      gpu::check(cudaStreamSynchronize(stream()), "a first launch");
      graphs.emplace_back(stream(), launches, launch);
    }
    std::vector<double> seconds = time_graphs(stream(), graphs, options_.timing.rounds);
    for (double& value : seconds) {
      value /= 1e6;
    }
    return seconds;
  }
  double time(const std::function<void(int)>& launch, int launches) {
    return time(std::span(&launch, 1), launches)[0];
  }

  void measure(LinearShape shape, LinearReport& report) {
    const std::int64_t max_tokens = *std::max_element(options_.tokens.begin(), options_.tokens.end());
    const GpuLayer layer(shape, max_tokens, options_.seed, *parallel_, second_level_cache_bytes(), stream(),
                         options_.group);
    for (const std::int64_t tokens : options_.tokens) {
      measure(layer, tokens, report);
    }
  }

  /// The layer without groups, and with them where they are wanted, in turn.
  void measure(const GpuLayer& layer, std::int64_t tokens, LinearReport& report) {
    const auto [n, k] = layer.shape();
    const int launches = std::max(kLaunches, layer.copies());
    // As in a model, each may start while the one in front of it ends.
    const bool programmatic = gpu_.device.compute_capability >= 90;
    cuda::NormQuant quantize = layer.quantize(tokens);
    quantize.programmatic = programmatic;
    std::vector<gpu::DeviceMemory> workspaces;
    std::vector<std::function<void(int)>> calls;  // product, layer; the same with groups
    for (const std::int64_t group : {std::int64_t{0}, options_.group}) {
      const bool grouped = group != 0;
      if (!calls.empty() && !grouped) {
        continue;
      }
      // Tuned plans are of products without group scales.
      const cuda::ProductPlan plan =
          grouped ? cuda::default_plan(gpu_.device, tokens, n, k, group) : plans_.plan(tokens, n, k);
      const std::size_t bytes = cuda::product_workspace_bytes(gpu_.device, plan, tokens, n, k, group);
      std::byte* const workspace = workspaces.emplace_back(gpu::allocate_device(bytes, "a workspace")).get();
      if (bytes > 0) {
        gpu::check(cudaMemset(workspace, 0, bytes), "a workspace");
      }
      const auto launch_product = [=, this](cuda::Product product) {
        product.workspace = workspace;
        product.programmatic = programmatic;
        cuda::product(gpu_.device, plan, product, stream());
      };
      layer.poison(tokens);
      gpu::check(cudaDeviceSynchronize(), "preparing");
      launch_product(layer.product(tokens, 0, grouped));
      layer.check(tokens, "cuda", grouped);
      calls.emplace_back([=, &layer](int i) { launch_product(layer.product(tokens, i, grouped)); });
      calls.emplace_back([=, this, &layer](int i) {
        cuda::norm_quant(gpu_.device, quantize, stream());
        launch_product(layer.product_behind_norm(tokens, i, grouped));
      });
    }
    const std::vector<double> seconds = time(calls, launches);
    for (std::size_t at = 0; at < calls.size(); at += 2) {
      const std::size_t bytes = layer.weight_bytes(at > 0);
      const double bandwidth =
          layer.from_memory()
              ? memory_bandwidth_
              : static_cast<double>(bytes) / time([&](int i) { read(layer.weights(i), bytes); }, launches);
      LinearResult result = result_of({layer.shape(), tokens, bytes, layer.from_memory()}, seconds[at],
                                      seconds[at + 1], bandwidth);
      if (at > 0) {
        result.group = options_.group;
        result.of_ungrouped = seconds[0] / seconds[at];
      }
      report.results.push_back(result);
    }
  }

  struct Measured {
    LinearShape shape;
    std::int64_t tokens;
    std::size_t bytes;
    bool from_memory;
  };
  LinearResult result_of(const Measured& what, double seconds, double layer_seconds, double bandwidth) const {
    const auto bytes = static_cast<double>(what.bytes);
    const double operations = 2.0 * static_cast<double>(what.tokens) *
                              static_cast<double>(what.shape.out_features) *
                              static_cast<double>(what.shape.in_features);
    const double by_read = bytes / bandwidth / seconds;
    const double by_peak = peak_ > 0 ? operations / peak_ / seconds : 0;
    return {.backend = Backend::cuda,
            .format = PanelFormat::two_bit,
            .shape = what.shape,
            .tokens = what.tokens,
            .from = what.from_memory ? WeightsFrom::memory : WeightsFrom::cache,
            .weight_bytes = what.bytes,
            .microseconds = seconds * 1e6,
            .layer_microseconds = layer_seconds * 1e6,
            .gops = operations / seconds / 1e9,
            .weight_gigabytes_per_second = bytes / seconds / 1e9,
            .read_gigabytes_per_second = bandwidth / 1e9,
            .share = std::max(by_read, by_peak),
            .limit = by_peak >= by_read ? "int8 peak"
                     : what.from_memory ? "memory read"
                                        : "cache read"};
  }

  const LinearBenchmark& options_;
  const TimingProgress& progress_;
  gpu::Gpu gpu_;
  cuda::TunedPlans plans_;
  std::unique_ptr<Parallel> parallel_;
  gpu::StreamHandle stream_;
  gpu::DeviceMemory sink_;
  double peak_ = 0;  // operations a second
  double memory_bandwidth_ = 0;
};

}  // namespace

GpuReport benchmark_gpu(const LinearBenchmark& options, const TimingProgress& progress) {
  return GpuBenchmark(options, progress).run();
}

}  // namespace trit::bench

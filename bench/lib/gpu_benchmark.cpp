// SPDX-License-Identifier: MIT
#include "bench/lib/gpu_benchmark.h"

#include <algorithm>
#include <functional>

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

  /// Seconds of one launch(i), i counting up: the median over graphs of `launches` of them.
  double time(const std::function<void(int)>& launch, int launches) {
    launch(0);
    gpu::check(cudaStreamSynchronize(stream()), "a first launch");
    const LaunchGraph graph(stream(), launches, launch);
    return time_graphs(stream(), std::span(&graph, 1), options_.timing.rounds)[0] / 1e6;
  }

  void measure(LinearShape shape, LinearReport& report) {
    const std::int64_t max_tokens = *std::max_element(options_.tokens.begin(), options_.tokens.end());
    const GpuLayer layer(shape, max_tokens, options_.seed, *parallel_, second_level_cache_bytes(), stream());
    const int launches = std::max(kLaunches, layer.copies());
    for (const std::int64_t tokens : options_.tokens) {
      const cuda::ProductPlan plan = plans_.plan(tokens, shape.out_features, shape.in_features);
      const std::size_t workspace_bytes =
          cuda::product_workspace_bytes(gpu_.device, plan, tokens, shape.out_features, shape.in_features);
      const gpu::DeviceMemory workspace = gpu::allocate_device(workspace_bytes, "a workspace");
      if (workspace_bytes > 0) {
        gpu::check(cudaMemset(workspace.get(), 0, workspace_bytes), "a workspace");
      }
      layer.poison(tokens);
      gpu::check(cudaDeviceSynchronize(), "preparing");
      // As in a model, each may start while the one in front of it ends.
      const bool programmatic = gpu_.device.compute_capability >= 90;
      const auto launch_product = [&](cuda::Product product, int i) {
        product.weights = layer.weights(i);
        product.workspace = workspace.get();
        product.programmatic = programmatic;
        cuda::product(gpu_.device, plan, product, stream());
      };
      const double seconds = time([&](int i) { launch_product(layer.product(tokens), i); }, launches);
      layer.check(tokens, "cuda");
      cuda::NormQuant quantize = layer.quantize(tokens);
      quantize.programmatic = programmatic;
      const double layer_seconds = time(
          [&](int i) {
            cuda::norm_quant(gpu_.device, quantize, stream());
            launch_product(layer.product_behind_norm(tokens), i);
          },
          launches);
      const std::size_t bytes = layer.weight_bytes();
      const double bandwidth =
          layer.from_memory()
              ? memory_bandwidth_
              : static_cast<double>(bytes) / time([&](int i) { read(layer.weights(i), bytes); }, launches);
      report.results.push_back(
          result_of({shape, tokens, bytes, layer.from_memory()}, seconds, layer_seconds, bandwidth));
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

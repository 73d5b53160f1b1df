// SPDX-License-Identifier: MIT
#include "bench/lib/gpu_tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "bench/lib/gpu_layer.h"
#include "bench/lib/gpu_timing.h"
#include "cuda/autotune/autotune.h"
#include "cuda/autotune/tuning.h"
#include "runtime/cuda/device.h"

namespace trit::bench {
namespace {

namespace gpu = runtime::gpu;
using cuda::ProductPlan;

constexpr double kGraphMicroseconds = 500;

/// Times plans of one product in CUDA graphs, where launches follow each other as in a model.
class GraphTimer final : public cuda::PlanTimer {
 public:
  GraphTimer(const GpuLayer& layer, std::int64_t tokens, const cuda::Device& device, cuda::Stream stream)
      : layer_(layer), tokens_(tokens), device_(device), stream_(stream) {}

  std::vector<double> time(std::span<const ProductPlan> plans, int rounds) override {
    reserve_workspace(plans);
    const double weights = static_cast<double>(layer_.shape().out_features * layer_.shape().in_features);
    // About what a data centre's GPU needs for it.
    const double estimate =
        std::max({2 * weights * static_cast<double>(tokens_) / 1.2e9, weights / 4 / 3.5e6, 3.0});
    const int launches = std::max(layer_.copies(), static_cast<int>(kGraphMicroseconds / estimate));
    const bool programmatic = device_.compute_capability >= 90;
    std::vector<LaunchGraph> graphs;
    graphs.reserve(plans.size());
    for (const ProductPlan& plan : plans) {
      launch(plan, 0, programmatic);  // loads the kernel, which a capture does not allow
      gpu::check(cudaStreamSynchronize(stream_), "a first launch");
      graphs.emplace_back(stream_, launches, [&](int i) { launch(plan, i, programmatic); });
    }
    return time_graphs(stream_, graphs, rounds);
  }

  void check(const ProductPlan& plan) override {
    layer_.poison(tokens_);
    launch(plan, 0, false);
    layer_.check(tokens_, "cuda, plan '" + cuda::name_of(plan) + "',");
  }

 private:
  void reserve_workspace(std::span<const ProductPlan> plans) {
    const auto [n, k] = layer_.shape();
    std::size_t bytes = 0;
    for (const ProductPlan& plan : plans) {
      bytes = std::max(bytes, cuda::product_workspace_bytes(device_, plan, tokens_, n, k));
    }
    workspace_ = gpu::allocate_device(bytes, "a workspace");
    if (bytes > 0) {
      gpu::check(cudaMemset(workspace_.get(), 0, bytes), "a workspace");
      gpu::check(cudaDeviceSynchronize(), "a workspace");
    }
  }

  void launch(const ProductPlan& plan, int i, bool programmatic) {
    cuda::Product product = layer_.product(tokens_, i);
    product.workspace = workspace_.get();
    product.programmatic = programmatic;
    cuda::product(device_, plan, product, stream_);
  }

  const GpuLayer& layer_;
  std::int64_t tokens_;
  cuda::Device device_;
  cuda::Stream stream_;
  gpu::DeviceMemory workspace_;
};

TunedProduct tune(const GpuLayer& layer, std::int64_t tokens, const cuda::Device& device, int rounds,
                  cuda::Stream stream, cuda::Tuning& tuning) {
  const auto [n, k] = layer.shape();
  GraphTimer timer(layer, tokens, device, stream);
  const cuda::Autotuned found = cuda::autotune(device, tokens, n, k, rounds, timer);
  if (found.best == found.default_plan) {
    tuning.erase(tokens, n, k);
  } else {
    tuning.set(tokens, n, k, found.best);
  }
  return {.shape = layer.shape(),
          .tokens = tokens,
          .table_plan = cuda::name_of(found.default_plan),
          .best_plan = cuda::name_of(found.best),
          .plans = found.candidates,
          .table_microseconds = found.default_microseconds,
          .best_microseconds = found.best_microseconds};
}

}  // namespace

TuneReport tune_gpu(const LinearBenchmark& options, const TimingProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const auto [name, device] = gpu::find_gpu();
  const std::string key = cuda::tuning_key(name, device);
  const cuda::TuningFile file = cuda::tuning_file(key);
  // The file that TRIT_CUDA_TUNING names need not exist yet.
  cuda::Tuning tuning = cuda::load_tuning({file.path, false}, key);
  const std::unique_ptr<Parallel> parallel = make_parallel(0);
  const gpu::StreamHandle stream = gpu::make_stream();
  const std::int64_t max_tokens = *std::ranges::max_element(options.tokens);
  TuneReport report{.device = name, .file = {}, .products = {}};
  double sum = 0;
  for (const LinearShape shape : options.shapes) {
    const GpuLayer layer(shape, max_tokens, options.seed, *parallel, second_level_cache_bytes(),
                         stream.get());
    for (const std::int64_t tokens : options.tokens) {
      report.products.push_back(tune(layer, tokens, device, options.timing.rounds, stream.get(), tuning));
      sum += std::log(report.products.back().ratio());
      if (progress) {
        progress(static_cast<std::int64_t>(report.products.size()),
                 static_cast<std::int64_t>(options.shapes.size() * options.tokens.size()));
      }
    }
  }
  report.mean_ratio = std::exp(sum / static_cast<double>(report.products.size()));
  report.file = cuda::save_tuning(file, key, tuning) ? file.path : std::filesystem::path();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace trit::bench

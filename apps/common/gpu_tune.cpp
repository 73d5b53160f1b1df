// SPDX-License-Identifier: MIT
#include "common/gpu_tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "bench/lib/gpu_layer.h"
#include "bench/lib/gpu_timing.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/tuning.h"

namespace trit::apps {
namespace {

namespace gpu = runtime::gpu;
using cuda::ProductPlan;

/// Plans that are timed again, beside the table's.
constexpr std::size_t kFinalists = 5;
/// A plan must be so much faster than the table's to be kept: medians of one plan differ by 1 % from run to
/// run.
constexpr double kLeastGain = 1.02;
constexpr double kGraphMicroseconds = 500;

class Tuner {
 public:
  Tuner(const LinearBenchmark& options, const TimingProgress& progress)
      : options_(options),
        progress_(progress),
        gpu_(gpu::find_gpu()),
        key_(gpu::tuning_key(gpu_.name, gpu_.device)),
        file_(gpu::tuning_file(key_)),
        parallel_(make_parallel(0)) {
    // The file that TRIT_CUDA_TUNING names is made here.
    tuning_ = gpu::load_tuning({file_.path, false}, key_);
    stream_ = gpu::make_stream();
  }

  TuneReport run() {
    const auto start = std::chrono::steady_clock::now();
    TuneReport report{.device = gpu_.name, .file = {}, .products = {}};
    std::int64_t done = 0;
    const std::int64_t most = *std::ranges::max_element(options_.tokens);
    for (const LinearShape shape : options_.shapes) {
      const GpuLayer layer(shape, most, options_.seed, *parallel_, second_level_cache_bytes(), stream_.get());
      for (const std::int64_t tokens : options_.tokens) {
        report.products.push_back(tune(layer, tokens));
        if (progress_) {
          progress_(++done, static_cast<std::int64_t>(options_.shapes.size() * options_.tokens.size()));
        }
      }
    }
    double sum = 0;
    for (const TunedProduct& product : report.products) {
      sum += std::log(product.ratio());
    }
    report.mean_ratio = std::exp(sum / static_cast<double>(report.products.size()));
    report.file = gpu::save_tuning(file_, key_, tuning_) ? file_.path : std::filesystem::path();
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report;
  }

 private:
  TunedProduct tune(const GpuLayer& layer, std::int64_t tokens) {
    const auto [n, k] = layer.shape();
    const ProductPlan table = cuda::default_plan(gpu_.device, tokens, n, k);
    std::vector<ProductPlan> plans{table};  // the table's is the first
    for (const ProductPlan& plan : cuda::possible_plans(gpu_.device, tokens, n, k)) {
      if (plan != table) {
        plans.push_back(plan);
      }
    }
    const std::size_t timed = plans.size();
    reserve_workspace(plans, layer.shape(), tokens);

    const std::vector<double> first = time(layer, tokens, plans, 1);
    std::vector<std::size_t> order(plans.size() - 1);
    std::iota(order.begin(), order.end(), std::size_t{1});
    std::ranges::sort(order, {}, [&](std::size_t i) { return first[i]; });
    order.resize(std::min(order.size(), kFinalists));
    std::vector<ProductPlan> finalists{table};
    for (const std::size_t i : order) {
      finalists.push_back(plans[i]);
    }
    for (const ProductPlan& plan : finalists) {
      layer.poison(tokens);
      launch(layer, tokens, plan, 0, false);
      layer.check(tokens, "cuda, plan '" + cuda::name_of(plan) + "',");
    }
    const std::vector<double> times = time(layer, tokens, finalists, options_.timing.rounds);
    auto best = static_cast<std::size_t>(std::ranges::min_element(times) - times.begin());
    if (times[0] < kLeastGain * times[best]) {
      best = 0;
    }
    if (best == 0) {
      tuning_.erase(tokens, n, k);
    } else {
      tuning_.set(tokens, n, k, finalists[best]);
    }
    return {.shape = layer.shape(),
            .tokens = tokens,
            .table_plan = cuda::name_of(table),
            .best_plan = cuda::name_of(finalists[best]),
            .plans = timed,
            .table_microseconds = times[0],
            .best_microseconds = times[best]};
  }

  void reserve_workspace(const std::vector<ProductPlan>& plans, LinearShape shape, std::int64_t tokens) {
    std::size_t bytes = 0;
    for (const ProductPlan& plan : plans) {
      bytes = std::max(bytes, cuda::product_workspace_bytes(gpu_.device, plan, tokens, shape.out_features,
                                                            shape.in_features));
    }
    workspace_ = gpu::allocate_device(bytes, "a workspace");
    if (bytes > 0) {
      gpu::check(cudaMemset(workspace_.get(), 0, bytes), "a workspace");
      gpu::check(cudaDeviceSynchronize(), "a workspace");
    }
  }

  void launch(const GpuLayer& layer, std::int64_t tokens, const ProductPlan& plan, int i, bool programmatic) {
    cuda::Product product = layer.product(tokens);
    product.weights = layer.weights(i);
    product.workspace = workspace_.get();
    product.programmatic = programmatic;
    cuda::product(gpu_.device, plan, product, stream_.get());
  }

  /// Microseconds of one product by each plan.
  std::vector<double> time(const GpuLayer& layer, std::int64_t tokens, const std::vector<ProductPlan>& plans,
                           int rounds) {
    const double weights = static_cast<double>(layer.shape().out_features * layer.shape().in_features);
    // About what a data centre's GPU needs for it.
    const double estimate =
        std::max({2 * weights * static_cast<double>(tokens) / 1.2e9, weights / 4 / 3.5e6, 3.0});
    const int copies = layer.copies();
    const int launches = std::max(copies, static_cast<int>(kGraphMicroseconds / estimate));
    const bool programmatic = gpu_.device.compute_capability >= 90;
    std::vector<LaunchGraph> graphs;
    graphs.reserve(plans.size());
    for (const ProductPlan& plan : plans) {
      launch(layer, tokens, plan, 0, programmatic);  // loads the kernel, which a capture does not allow
      gpu::check(cudaStreamSynchronize(stream_.get()), "a first launch");
      graphs.emplace_back(stream_.get(), launches,
                          [&](int i) { launch(layer, tokens, plan, i, programmatic); });
    }
    return time_graphs(stream_.get(), graphs, rounds);
  }

  const LinearBenchmark& options_;
  const TimingProgress& progress_;
  gpu::Gpu gpu_;
  std::string key_;
  gpu::TuningFile file_;
  gpu::Tuning tuning_;
  std::unique_ptr<Parallel> parallel_;
  gpu::StreamHandle stream_;
  gpu::DeviceMemory workspace_;
};

}  // namespace

TuneReport tune_gpu(const LinearBenchmark& options, const TimingProgress& progress) {
  return Tuner(options, progress).run();
}

}  // namespace trit::apps

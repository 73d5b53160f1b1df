// SPDX-License-Identifier: MIT
#include "common/gpu_benchmark.h"

#include <algorithm>
#include <functional>

#include "common/gpu_read.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/resources.h"

namespace trit::apps {
namespace {

namespace gpu = runtime::gpu;

/// Launches in one graph: enough to hide the graph's own start.
constexpr int kLaunches = 50;
constexpr int kMostCopies = 256;

struct DestroyEvent {
  void operator()(CUevent_st* event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;

Event make_event() {
  cudaEvent_t event = nullptr;
  gpu::check(cudaEventCreate(&event), "an event");
  return Event(event);
}

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

template <typename Value>
gpu::DeviceMemory upload(const Value* values, std::size_t count, const char* what) {
  gpu::DeviceMemory memory = gpu::allocate_device(count * sizeof(Value), what);
  gpu::check(cudaMemcpy(memory.get(), values, count * sizeof(Value), cudaMemcpyHostToDevice), what);
  return memory;
}

class GpuBenchmark {
 public:
  GpuBenchmark(const LinearBenchmark& options, const TimingProgress& progress)
      : options_(options), progress_(progress), gpu_(gpu::find_gpu()), parallel_(make_parallel(0)) {
    cudaStream_t stream = nullptr;
    gpu::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    stream_.reset(stream);
    l2_ = static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize));
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
    return {gpu_.name, std::move(report)};
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
    gpu::check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "capturing a graph");
    for (int i = 0; i < launches; ++i) {
      launch(i);
    }
    cudaGraph_t captured = nullptr;
    gpu::check(cudaStreamEndCapture(stream(), &captured), "capturing a graph");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, captured, 0);
    cudaGraphDestroy(captured);
    gpu::check(error, "making a graph");
    const gpu::GraphHandle graph(executable);
    const Event begin = make_event();
    const Event end = make_event();
    std::vector<double> seconds;
    for (std::int64_t round = 0; round < options_.timing.rounds + 1; ++round) {
      gpu::check(cudaEventRecord(begin.get(), stream()), "timing");
      gpu::check(cudaGraphLaunch(graph.get(), stream()), "timing");
      gpu::check(cudaEventRecord(end.get(), stream()), "timing");
      gpu::check(cudaEventSynchronize(end.get()), "timing");
      float milliseconds = 0;
      gpu::check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "timing");
      if (round > 0) {  // the first one warms up
        seconds.push_back(static_cast<double>(milliseconds) / 1e3 / launches);
      }
    }
    return median(seconds);
  }

  void measure(LinearShape shape, LinearReport& report) {
    const std::int64_t most = *std::max_element(options_.tokens.begin(), options_.tokens.end());
    const LinearCase layer = make_linear_case(shape, most, options_.seed, *parallel_);
    const auto n = static_cast<std::size_t>(shape.out_features);
    const auto k = static_cast<std::size_t>(shape.in_features);
    const auto m = static_cast<std::size_t>(most);
    const auto pitch = static_cast<std::size_t>(cuda::quantized_row_bytes(shape.in_features));
    const auto host_pitch = static_cast<std::size_t>(padded_in_features(shape.in_features));
    const std::size_t bytes = cuda::weight_bytes(shape.out_features, shape.in_features);
    const int copies = static_cast<int>(std::clamp<std::size_t>(3 * l2_ / bytes + 1, 1, kMostCopies));
    const bool from_memory = bytes * static_cast<std::size_t>(copies) > 2 * l2_;

    const gpu::DeviceMemory codes = upload(layer.weight.codes.data(), layer.weight.codes.size(), "codes");
    const gpu::DeviceMemory beta = upload(layer.weight.scale.data(), layer.weight.scale.size(), "a scale");
    const gpu::DeviceMemory weights =
        gpu::allocate_device(bytes * static_cast<std::size_t>(copies), "weights");
    const auto copy = [&](int i) {
      return reinterpret_cast<std::uint8_t*>(weights.get()) + bytes * static_cast<std::size_t>(i % copies);
    };
    for (int i = 0; i < copies; ++i) {
      cuda::prepare_weights(reinterpret_cast<const std::uint8_t*>(codes.get()), shape.out_features,
                            shape.in_features, copy(i), stream());
    }
    const gpu::DeviceMemory x = upload(layer.x.data(), m * k, "x");
    const gpu::DeviceMemory norm = upload(layer.norm_weight.data(), k, "a norm");
    const gpu::DeviceMemory scale = upload(layer.scale.data(), m, "scales");
    const gpu::DeviceMemory q = gpu::allocate_device(m * pitch, "q");
    gpu::check(cudaMemset(q.get(), 0, m * pitch), "q");
    gpu::check(
        cudaMemcpy2D(q.get(), pitch, layer.q.data(), host_pitch, host_pitch, m, cudaMemcpyHostToDevice), "q");
    const gpu::DeviceMemory layer_q = gpu::allocate_device(m * pitch, "q");
    const gpu::DeviceMemory layer_scale = gpu::allocate_device(m * sizeof(float), "scales");
    const gpu::DeviceMemory y = gpu::allocate_device(m * n * sizeof(float), "y");

    for (const std::int64_t tokens : options_.tokens) {
      const std::size_t workspace_bytes =
          cuda::product_workspace_bytes(gpu_.device, tokens, shape.out_features, shape.in_features);
      const gpu::DeviceMemory workspace = gpu::allocate_device(workspace_bytes, "a workspace");
      if (workspace_bytes > 0) {
        gpu::check(cudaMemset(workspace.get(), 0, workspace_bytes), "a workspace");
      }
      gpu::check(cudaDeviceSynchronize(), "preparing");
      cuda::Product product{.weights = copy(0),
                            .out_features = shape.out_features,
                            .in_features = shape.in_features,
                            .q = reinterpret_cast<const std::int8_t*>(q.get()),
                            .row_scale = reinterpret_cast<const float*>(scale.get()),
                            .tokens = tokens,
                            .scale = reinterpret_cast<const float*>(beta.get()),
                            .y = y.get(),
                            .workspace = workspace.get()};
      const double seconds = time(
          [&](int i) {
            product.weights = copy(i);
            cuda::product(gpu_.device, product, stream());
          },
          kLaunches);
      std::vector<float> found(static_cast<std::size_t>(tokens) * n);
      gpu::check(cudaMemcpy(found.data(), y.get(), found.size() * sizeof(float), cudaMemcpyDeviceToHost),
                 "y");
      check_outputs(layer, tokens, found, "cuda");

      const cuda::NormQuant quantize{.x = x.get(),
                                     .tokens = tokens,
                                     .in_features = shape.in_features,
                                     .x_stride = shape.in_features,
                                     .norm = Norm::rms,
                                     .norm_weight = reinterpret_cast<const float*>(norm.get()),
                                     .q = reinterpret_cast<std::int8_t*>(layer_q.get()),
                                     .scale = reinterpret_cast<float*>(layer_scale.get())};
      product.q = quantize.q;
      product.row_scale = quantize.scale;
      const double layer_seconds = time(
          [&](int i) {
            product.weights = copy(i);
            cuda::norm_quant(gpu_.device, quantize, stream());
            cuda::product(gpu_.device, product, stream());
          },
          kLaunches);
      const double bandwidth =
          from_memory ? memory_bandwidth_
                      : static_cast<double>(bytes) / time([&](int i) { read(copy(i), bytes); }, kLaunches);
      report.results.push_back(
          result_of({shape, tokens, bytes, from_memory}, seconds, layer_seconds, bandwidth));
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
  std::unique_ptr<Parallel> parallel_;
  gpu::StreamHandle stream_;
  gpu::DeviceMemory sink_;
  std::size_t l2_ = 0;
  double peak_ = 0;  // operations a second
  double memory_bandwidth_ = 0;
};

}  // namespace

GpuReport benchmark_gpu(const LinearBenchmark& options, const TimingProgress& progress) {
  return GpuBenchmark(options, progress).run();
}

}  // namespace trit::apps

// SPDX-License-Identifier: MIT
//
// A network on the CPU: ternary layers by this library's kernels, float layers by oneDNN or the built-in
// loops.
#include <algorithm>
#include <exception>
#include <map>
#include <mutex>

#include "base/team.h"
#include "io/checksum.h"
#include "io/mapped_file.h"
#include "runtime/arena_pool.h"
#include "runtime/checked_layers.h"
#include "runtime/dense.h"
#include "runtime/engine.h"
#include "runtime/openmp_threads.h"
#include "runtime/program.h"
#include "trit/layout.h"

namespace trit::runtime {
namespace {

/// Images of one chunk: as many as keep the largest layer's input and output within this many bytes per
/// thread (an L2 cache), but at least as many as there are threads.
constexpr std::int64_t kChunkBytesPerThread = std::int64_t{1} << 22;
/// Enough rows to reach the kernels' full speed; more would only take memory.
constexpr std::int64_t kMaxChunk = 256;

std::int64_t images_per_chunk(const Network& network, int threads) {
  const std::int64_t largest = largest_layer(network);
  const std::int64_t images = kChunkBytesPerThread * threads / (largest * std::int64_t{sizeof(float)});
  return std::clamp<std::int64_t>(images, threads, std::max<std::int64_t>(kMaxChunk, threads));
}

/// Where a thread has at least so many images to itself, and the packed weights fit beside their activations
/// in its L2, each thread takes its images through the whole network alone. Nobody waits for another between
/// layers: SimpleBitNetCNN on two cores, in bf16 pairs, batch 128: 45,000 images/s against 40,000, and 13,000
/// to 22,000 against 3,000 to 7,000 beside another busy process.
constexpr std::int64_t kMinOwnImages = 16;
constexpr std::int64_t kMaxOwnBytes = std::int64_t{1} << 20;

/// Bytes of all ternary weights at 2 bits: what one image reads.
std::int64_t ternary_bytes(const Network& network) {
  std::int64_t bytes = 0;
  for (const Node& node : network.graph.nodes) {
    if (const auto matrix = node.op ? node.op->ternary_matrix() : std::nullopt) {
      bytes += static_cast<std::int64_t>(matrix->codes.size());
    }
  }
  return bytes;
}

/// At 256 * channel + byte: (byte / 255 - mean[channel]) / std[channel].
std::vector<float> normalised_bytes(std::span<const float> mean, std::span<const float> std) {
  std::vector<float> values;
  for (std::size_t channel = 0; channel < mean.size(); ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      values.push_back((static_cast<float>(byte) / 255.0F - mean[channel]) / std[channel]);
    }
  }
  return values;
}

class CpuEngine final : public Engine {
 public:
  CpuEngine(const io::SafetensorsFile& file, const ModelOptions& options, Network& net,
            std::span<const Step> steps)
      : kernels_(cpu_kernels_for(options.backend)),
        parallel_(make_parallel(options.threads)),
        alone_(make_parallel(1)),
        network_(net),
        steps_(steps),
        weight_bytes_(ternary_bytes(network_)),
        layout_(options.layout == PanelFormat::automatic
                    ? choose_layout(kernels_, *parallel_, weight_bytes_).format
                    : options.layout),
        chunk_(images_per_chunk(network_, parallel_->threads())),
        dense_(make_dense_library()) {
    load_ternary_layers(file);
    Parallel& parallel = team_is_lost() ? *alone_ : *parallel_;
    const OpenMpThreads scope(parallel.threads());
    for (const Node& node : network_.graph.nodes) {
      if (node.op) {
        node.op->prepare({*dense_, backend()});
      }
    }
    program(parallel, 1);  // a layer that the library cannot run shows now
  }

  Backend backend() const override { return backend_of(kernels_); }
  PanelFormat layout() const override { return layout_; }
  int threads() const override { return parallel_->threads(); }
  std::string dense_library() const override { return dense_->name(); }
  ModelMemory memory() const override { return {}; }

  void run_images(const std::uint8_t* pixels, std::span<const float> mean, std::span<const float> std,
                  std::int64_t batch, float* y) override {
    const std::int64_t in = numel(network_.graph.input.shape);
    const std::int64_t out = numel(network_.shapes.back());
    const std::int64_t plane = in / static_cast<std::int64_t>(mean.size());
    const std::vector<float> normalised = normalised_bytes(mean, std);
    std::vector<float> x(static_cast<std::size_t>(in * std::min(batch, chunk_)));
    for (std::int64_t first = 0; first < batch; first += chunk_) {
      const std::int64_t images = std::min(chunk_, batch - first);
      parallel_->run(images * in / plane, [&](std::int64_t i) {
        const float* const value = normalised.data() + 256 * (i % std::ssize(mean));
        const std::uint8_t* const from = pixels + first * in + i * plane;
        std::transform(from, from + plane, x.begin() + i * plane,
                       [&](std::uint8_t byte) { return value[byte]; });
      });
      run(x.data(), images, y + first * out);
    }
  }

  void run(const float* x, std::int64_t batch, float* y) override {
    // After fork() neither our loops nor oneDNN's may begin a parallel region (team.h).
    Parallel& parallel = team_is_lost() ? *alone_ : *parallel_;
    const std::int64_t threads = parallel.threads();
    const bool alone = threads > 1 && batch >= threads * kMinOwnImages && weight_bytes_ <= kMaxOwnBytes;
    const std::int64_t most = alone ? std::max<std::int64_t>(chunk_ / threads, 1) : chunk_;
    std::int64_t chunks = (batch + most - 1) / most;
    if (!alone) {
      const OpenMpThreads scope(parallel.threads());
      const DefaultFloatingPoint environment;
      for (std::int64_t c = 0; c < chunks; ++c) {
        run_chunk(parallel, c, chunks, x, batch, y);
      }
      return;
    }
    chunks = (chunks + threads - 1) / threads * threads;
    std::mutex failing;
    std::exception_ptr failure;
    parallel_->run(chunks, [&](std::int64_t c) {
      const OpenMpThreads scope(1);
      try {
        run_chunk(*alone_, c, chunks, x, batch, y);
      } catch (...) {
        const std::lock_guard lock(failing);
        failure = std::current_exception();
      }
    });
    if (failure) {
      std::rethrow_exception(failure);
    }
  }

 private:
  void load_ternary_layers(const io::SafetensorsFile& file) {
    std::vector<StoredMatrix> matrices;
    std::vector<std::size_t> nodes;  // of the matrices
    for (std::size_t i = 1; i < network_.graph.nodes.size(); ++i) {
      if (const auto matrix = network_.graph.nodes[i].op->ternary_matrix()) {
        nodes.push_back(i);
        matrices.push_back({*matrix, file.path().string() + ": " + describe(network_.graph, i) + ": tensor " +
                                         network_.graph.nodes[i].name + ".weight"});
      }
    }
    // The file's pages leave memory as the panels come, on all threads: to take them all out at the end is
    // one thread's work, and doubles the memory that a model needs while it is loaded.
    std::vector<PackedLinear> packed = prepare_checked(
        kernels_, *parallel_, matrices, layout_,
        [](const StoredMatrix& matrix) { io::release_pages(std::as_bytes(matrix.weight.codes)); });
    std::map<std::string, std::uint32_t> crcs;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const Node& node = network_.graph.nodes[nodes[i]];
      crcs[node.name + ".weight"] = matrices[i].codes_crc;
      node.op->take_ternary(std::move(packed[i]));
    }
    // Last: what is wrong in a way that can be named has been named. This finds flipped bits in float
    // weights.
    io::verify_checksum(file, crcs);
  }

  /// Chunks differ by one image at most: 130 images in three are 44 + 43 + 43.
  void run_chunk(Parallel& parallel, std::int64_t index, std::int64_t chunks, const float* x,
                 std::int64_t batch, float* y) {
    const std::int64_t begin = batch * index / chunks;
    const std::int64_t images = batch * (index + 1) / chunks - begin;
    const Program& chunk_program = program(parallel, images);
    const ArenaPool::Loan arena(arenas_, chunk_program.arena_bytes());
    chunk_program.run(x + begin * numel(network_.graph.input.shape),
                      y + begin * numel(network_.shapes.back()), arena.data());
  }

  const Program& program(Parallel& parallel, std::int64_t batch) {
    const std::lock_guard lock(mutex_);
    auto& entry = programs_[{parallel.threads(), batch}];
    if (!entry) {
      entry = std::make_unique<Program>(ProgramParts{network_, steps_, *dense_, parallel}, batch);
    }
    return *entry;
  }

  const CpuKernels& kernels_;
  std::unique_ptr<Parallel> parallel_;
  std::unique_ptr<Parallel> alone_;  // one thread of it
  Network& network_;
  std::span<const Step> steps_;
  std::int64_t weight_bytes_;
  PanelFormat layout_;
  std::int64_t chunk_;
  std::unique_ptr<DenseLibrary> dense_;
  std::mutex mutex_;
  // By threads and images, at most `chunk_` of them.
  std::map<std::pair<int, std::int64_t>, std::unique_ptr<Program>> programs_;
  ArenaPool arenas_;
};

}  // namespace

std::unique_ptr<Engine> make_cpu_engine(const io::SafetensorsFile& file, const ModelOptions& options,
                                        Network& network, std::span<const Step> steps) {
  return std::make_unique<CpuEngine>(file, options, network, steps);
}

}  // namespace trit::runtime

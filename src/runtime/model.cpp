// SPDX-License-Identifier: MIT
//
// trit::Model: loads a file into prepared layers, and runs batches in chunks whose activations stay in cache.
#include "trit/model.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <new>

#include "io/checksum.h"
#include "runtime/arena_pool.h"
#include "runtime/program.h"
#include "trit/error.h"
#include "trit/layout.h"

namespace trit {
namespace {

using runtime::numel;

/// Images of one chunk: as many as keep the largest layer's input and output within this many bytes per
/// thread (an L2 cache), but at least as many as there are threads.
constexpr std::int64_t kChunkBytesPerThread = std::int64_t{1} << 22;
/// Enough rows to reach the kernels' full speed; more would only take memory.
constexpr std::int64_t kMaxChunk = 256;

std::int64_t images_per_chunk(const runtime::Network& network, int threads) {
  std::int64_t largest = 1;
  for (std::size_t i = 0; i < network.shapes.size(); ++i) {
    std::int64_t elements = numel(network.shapes[i]);
    for (const std::size_t input : network.graph.nodes[i].inputs) {
      elements += numel(network.shapes[input]);
    }
    largest = std::max(largest, elements);
  }
  const std::int64_t images = kChunkBytesPerThread * threads / (largest * std::int64_t{sizeof(float)});
  return std::clamp<std::int64_t>(images, threads, std::max<std::int64_t>(kMaxChunk, threads));
}

/// Bytes of all ternary weights at 2 bits: what one image reads.
std::int64_t ternary_bytes(const runtime::Network& network) {
  std::int64_t bytes = 0;
  for (const runtime::Parameters& own : network.parameters) {
    bytes += static_cast<std::int64_t>(own.codes.size());
  }
  return bytes;
}

/// oneDNN takes its threads from OpenMP's setting for the calling thread.
class OpenMpThreads {
 public:
  explicit OpenMpThreads(int threads) : before_(omp_get_max_threads()) {
    if (before_ != threads) {
      omp_set_num_threads(threads);
    }
  }
  ~OpenMpThreads() {
    if (omp_get_max_threads() != before_) {
      omp_set_num_threads(before_);
    }
  }
  OpenMpThreads(const OpenMpThreads&) = delete;
  OpenMpThreads& operator=(const OpenMpThreads&) = delete;

 private:
  int before_;
};

}  // namespace

struct Model::State {
  State(const io::SafetensorsFile& file, const ModelOptions& options)
      : kernels(cpu_kernels_for(options.backend)),
        parallel(make_parallel(options.threads)),
        network(runtime::load_network(file)),
        schedule(runtime::make_schedule(network)),
        layout(options.layout == PanelFormat::automatic
                   ? choose_layout(kernels, *parallel, ternary_bytes(network)).format
                   : options.layout),
        chunk(images_per_chunk(network, parallel->threads())) {
    std::map<std::string, std::uint32_t> crcs;
    for (std::size_t i = 0; i < network.graph.nodes.size(); ++i) {
      const runtime::Node& node = network.graph.nodes[i];
      runtime::Parameters& own = network.parameters[i];
      layers.push_back(nullptr);
      if (node.op == runtime::Op::bit_linear) {
        const TernaryView view{own.weight_shape[0], own.weight_shape[1], own.codes, own.scale};
        const std::string tensor = node.name + ".weight";
        const std::string what =
            file.path().string() + ": " + describe(network.graph, i) + ": tensor " + tensor;
        layers.back() = std::make_unique<runtime::TernaryLayer>(
            runtime::TernaryLayer{PackedLinear::checked(kernels, *parallel, view, layout, what, crcs[tensor]),
                                  node.norm, node.eps, std::move(own.norm_weight), std::move(own.bias)});
        own = {};  // the codes point into the file, which is about to be closed
      }
    }
    // Last: what is wrong in a way that can be named has been named. This finds flipped bits in float
    // weights.
    io::verify_checksum(file, crcs);
    const OpenMpThreads scope(parallel->threads());
    dense = runtime::make_dense_library(network, *parallel);
    program(1);  // a layer that the library cannot run shows now
  }

  const runtime::Program& program(std::int64_t batch) {
    const std::lock_guard lock(mutex);
    auto& entry = programs[batch];
    if (!entry) {
      entry = std::make_unique<runtime::Program>(
          runtime::ProgramContext{network, schedule, layers, *parallel}, *dense, batch);
    }
    return *entry;
  }

  void run(const float* x, std::int64_t batch, float* y) {
    const OpenMpThreads scope(parallel->threads());
    const DefaultFloatingPoint environment;
    const std::int64_t in = numel(network.graph.input.shape);
    const std::int64_t out = numel(network.shapes.back());
    // Chunks that differ by one image at most: 130 images in chunks of at most 64 are 44 + 43 + 43.
    const std::int64_t chunks = (batch + chunk - 1) / chunk;
    for (std::int64_t c = 0; c < chunks; ++c) {
      const std::int64_t begin = batch * c / chunks;
      const std::int64_t images = batch * (c + 1) / chunks - begin;
      const runtime::Program& chunk_program = program(images);
      const runtime::ArenaPool::Loan arena(arenas, chunk_program.arena_bytes());
      chunk_program.run(x + begin * in, y + begin * out, arena.data());
    }
  }

  const CpuKernels& kernels;
  std::unique_ptr<Parallel> parallel;
  runtime::Network network;
  runtime::Schedule schedule;
  PanelFormat layout;
  std::int64_t chunk;
  std::vector<std::unique_ptr<runtime::TernaryLayer>> layers;  // by node
  std::unique_ptr<runtime::DenseLibrary> dense;
  std::mutex mutex;
  std::map<std::int64_t, std::unique_ptr<runtime::Program>> programs;  // by images, at most `chunk` of them
  runtime::ArenaPool arenas;
};

Model Model::load(const std::filesystem::path& path, const ModelOptions& options) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  try {
    return Model(std::make_unique<State>(file, options));
  } catch (const std::bad_alloc&) {
    throw Error(path.string() + ": not enough memory to load the model");
  }
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

const ModelInput& Model::input() const { return state_->network.graph.input; }
const std::vector<std::int64_t>& Model::output_shape() const { return state_->network.shapes.back(); }
const std::vector<LayerInfo>& Model::layers() const { return state_->network.layers; }
Backend Model::backend() const { return state_->kernels.backend; }
PanelFormat Model::layout() const { return state_->layout; }
int Model::threads() const { return state_->parallel->threads(); }
std::string Model::dense_library() const { return state_->dense->name(); }

void Model::run(std::span<const float> x, std::int64_t batch, std::span<float> y) const {
  const auto check_size = [batch](const char* name, std::size_t found, std::int64_t per_image) {
    std::int64_t wanted = 0;
    if (batch < 0 || __builtin_mul_overflow(batch, per_image, &wanted) ||
        found != static_cast<std::size_t>(wanted)) {
      throw Error(std::string("Model::run: ") + name + " has " + std::to_string(found) +
                  " values, wanted batch " + std::to_string(batch) + " (0 or more) times " +
                  std::to_string(per_image));
    }
  };
  check_size("x", x.size(), numel(input().shape));
  check_size("y", y.size(), numel(output_shape()));
  try {
    state_->run(x.data(), batch, y.data());
  } catch (const std::bad_alloc&) {
    throw Error("Model::run: not enough memory for the activations");
  }
}

std::vector<float> Model::run(std::span<const float> x, std::int64_t batch) const {
  std::int64_t size = 0;
  if (batch < 0 || __builtin_mul_overflow(batch, numel(output_shape()), &size) ||
      size > (std::int64_t{1} << 40)) {
    throw Error("Model::run: batch " + std::to_string(batch) +
                ", wanted 0 or more and an output that fits memory");
  }
  std::vector<float> y(static_cast<std::size_t>(size));
  run(x, batch, y);
  return y;
}

}  // namespace trit

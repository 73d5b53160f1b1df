// SPDX-License-Identifier: MIT
#include "trit/model.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "runtime/engine.h"
#include "trit/error.h"

namespace trit {

using runtime::numel;

namespace {

void check_size(const char* name, std::size_t found, std::int64_t batch, std::int64_t per_image) {
  std::int64_t wanted = 0;
  if (batch < 0 || __builtin_mul_overflow(batch, per_image, &wanted) ||
      found != static_cast<std::size_t>(wanted)) {
    throw Error(std::string("Model::run: ") + name + " has " + std::to_string(found) +
                " values, wanted batch " + std::to_string(batch) + " (0 or more) times " +
                std::to_string(per_image));
  }
}

/// Throws Error unless all inputs of nodes that look up rows are indexes of rows.
void check_indexes(const runtime::Network& network, std::span<const float> x) {
  for (std::size_t i = 1; i < network.graph.nodes.size(); ++i) {
    const std::int64_t limit = network.graph.nodes[i].op->index_limit();
    if (limit == 0) {
      continue;
    }
    const auto bad = std::find_if_not(x.begin(), x.end(), [end = static_cast<float>(limit)](float index) {
      return index >= 0 && index < end && index == std::trunc(index);
    });
    if (bad != x.end()) {
      const std::int64_t at = bad - x.begin();
      const std::int64_t per_row = numel(network.graph.input.shape);
      throw Error("Model::run: index " + std::to_string(at % per_row) + " of batch row " +
                  std::to_string(at / per_row) + " is " + std::to_string(*bad) +
                  ", wanted a whole number from 0 to " + std::to_string(limit - 1) + ", a row of " +
                  runtime::describe(network.graph, i));
    }
  }
}

}  // namespace

struct Model::State {
  State(const io::SafetensorsFile& file, const ModelOptions& options)
      : network(runtime::load_network(file)), steps(runtime::fuse(network)) {
    const bool on_gpu = requested_backend(options.backend) == Backend::cuda;
    engine = on_gpu ? runtime::make_cuda_engine(file, options, network, steps)
                    : runtime::make_cpu_engine(file, options, network, steps);
  }

  runtime::Network network;
  std::vector<runtime::Step> steps;
  std::unique_ptr<runtime::Engine> engine;
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
Backend Model::backend() const { return state_->engine->backend(); }
PanelFormat Model::layout() const { return state_->engine->layout(); }
int Model::threads() const { return state_->engine->threads(); }
std::string Model::dense_library() const { return state_->engine->dense_library(); }
ModelMemory Model::memory() const { return state_->engine->memory(); }

void Model::run(std::span<const float> x, std::int64_t batch, std::span<float> y) const {
  check_size("x", x.size(), batch, numel(input().shape));
  check_size("y", y.size(), batch, numel(output_shape()));
  check_indexes(state_->network, x);
  try {
    state_->engine->run(x.data(), batch, y.data());
  } catch (const std::bad_alloc&) {
    throw Error("Model::run: not enough memory for the activations");
  }
}

void Model::run_images(std::span<const std::uint8_t> pixels, std::span<const float> mean,
                       std::span<const float> std, std::int64_t batch, std::span<float> y) const {
  check_size("pixels", pixels.size(), batch, numel(input().shape));
  check_size("y", y.size(), batch, numel(output_shape()));
  const auto channels = static_cast<std::size_t>(input().shape.front());
  if (mean.size() != channels || std.size() != channels) {
    throw Error("Model::run_images: " + std::to_string(mean.size()) + " means and " +
                std::to_string(std.size()) + " deviations, wanted " + std::to_string(channels) +
                " of each, one per channel");
  }
  for (const runtime::Node& node : state_->network.graph.nodes) {
    if (node.op && node.op->index_limit() != 0) {
      throw Error("Model::run_images: the model's input are indexes of rows, wanted images");
    }
  }
  try {
    state_->engine->run_images(pixels.data(), mean, std, batch, y.data());
  } catch (const std::bad_alloc&) {
    throw Error("Model::run_images: not enough memory for the activations");
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

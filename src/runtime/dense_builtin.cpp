// SPDX-License-Identifier: MIT
//
// Float layers by the plain loops of builtin_kernels.h, and convolutions by Winograd's algorithm where it
// pays: every value row-major, flatten is a second name.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "runtime/builtin_kernels.h"
#include "runtime/dense.h"
#include "runtime/memory_plan.h"
#include "runtime/relu_pool.h"
#include "runtime/winograd/layer.h"

namespace trit::runtime {
namespace {

/// A float layer's tensors.
struct Layer {
  Parameters own;                                       // without the weight where there is:
  std::unique_ptr<const WinogradConvolution> winograd;  // null where the plain loops run
};

/// By node.
using Weights = std::map<std::size_t, Layer>;

class BuiltinSegment final : public CompiledSegment {
 public:
  BuiltinSegment(const Network& network, const Weights& weights, Parallel& parallel,
                 const DenseSegment& segment, std::int64_t batch)
      : network_(network), weights_(weights), parallel_(parallel), segment_(segment), batch_(batch) {
    std::map<std::size_t, std::size_t> buffer_of;  // of values that neither enter nor leave
    std::vector<Lifetime> lifetimes;
    const auto touch = [&](std::size_t value, std::size_t step) {
      if (contains(segment.inputs, value) || contains(segment.outputs, value)) {
        return;
      }
      const auto [at, fresh] = buffer_of.try_emplace(value, lifetimes.size());
      if (fresh) {
        lifetimes.push_back({static_cast<std::size_t>(elements(value)) * sizeof(float), step, step});
      }
      lifetimes[at->second].last = step;
    };
    for (std::size_t s = 0; s < segment.steps.size(); ++s) {
      for (const std::size_t input : segment.steps[s].inputs) {
        touch(input, s);
      }
      touch(segment.steps[s].output, s);
    }
    const MemoryPlan plan = plan_memory(lifetimes);
    arena_bytes_ = plan.bytes;
    for (const auto& [value, buffer] : buffer_of) {
      offsets_[value] = plan.offsets[buffer];
    }
  }

  std::size_t arena_bytes() const override { return arena_bytes_; }

  void run(std::span<const float* const> inputs, std::span<float* const> outputs,
           std::byte* arena) const override {
    const auto place = [&](std::size_t value) -> float* {
      const auto at = std::find(segment_.outputs.begin(), segment_.outputs.end(), value);
      return at != segment_.outputs.end() ? outputs[static_cast<std::size_t>(at - segment_.outputs.begin())]
                                          : reinterpret_cast<float*>(arena + offsets_.at(value));
    };
    const auto read = [&](std::size_t value) -> const float* {
      const auto at = std::find(segment_.inputs.begin(), segment_.inputs.end(), value);
      return at != segment_.inputs.end() ? inputs[static_cast<std::size_t>(at - segment_.inputs.begin())]
                                         : place(value);
    };
    for (const DenseStep& step : segment_.steps) {
      const float* const second = step.inputs.size() > 1 ? read(step.inputs[1]) : nullptr;
      run_step(step, read(step.inputs[0]), second, place(step.output));
    }
  }

 private:
  static bool contains(const std::vector<std::size_t>& list, std::size_t value) {
    return std::find(list.begin(), list.end(), value) != list.end();
  }
  std::int64_t elements(std::size_t value) const { return batch_ * numel(network_.shapes[value]); }

  void run_step(const DenseStep& step, const float* x, const float* second, float* y) const {
    const Node& node = network_.graph.nodes[step.node];
    switch (node.op) {
      case Op::conv2d: {
        const auto& [own, winograd] = weights_.at(step.node);
        if (winograd) {
          ConvolutionShape shape = winograd_shape(network_, step.node);
          shape.relu = step.relu;
          winograd->run(parallel_, shape, batch_, x, ImageOrder::planes, y, ImageOrder::planes);
          break;
        }
        builtin::conv2d(parallel_, image(step, own.weight_shape[2], own.weight_shape[3]), x,
                        own.weight.data(), own.bias.empty() ? nullptr : own.bias.data(), step.relu, y);
        break;
      }
      case Op::linear: {
        const Parameters& own = weights_.at(step.node).own;
        const std::int64_t in = own.weight_shape[1];
        builtin::linear(parallel_, elements(step.inputs[0]) / in, in, own.weight_shape[0], x,
                        own.weight.data(), own.bias.empty() ? nullptr : own.bias.data(), step.relu, y);
        break;
      }
      case Op::max_pool2d:
        max_pool2d(parallel_, pooling(step), x, y);
        break;
      case Op::avg_pool2d:
        avg_pool2d(parallel_, pooling(step), x, y);
        break;
      case Op::relu:
        relu(parallel_, elements(step.output), x, y);
        break;
      case Op::add:
        builtin::add(parallel_, elements(step.output), x, second, y);
        break;
      default:  // flatten: the same elements in the same order
        std::memcpy(y, x, static_cast<std::size_t>(elements(step.output)) * sizeof(float));
        break;
    }
  }

  builtin::Image image(const DenseStep& step, std::int64_t kernel_height, std::int64_t kernel_width) const {
    const Shape& in = network_.shapes[step.inputs[0]];
    const Shape& out = network_.shapes[step.output];
    const Node& node = network_.graph.nodes[step.node];
    return {.batch = batch_,
            .channels = in[0],
            .height = in[1],
            .width = in[2],
            .out_channels = out[0],
            .out_height = out[1],
            .out_width = out[2],
            .kernel_height = kernel_height,
            .kernel_width = kernel_width,
            .stride = node.stride,
            .padding = node.padding};
  }

  Pooling pooling(const DenseStep& step) const {
    const Shape& in = network_.shapes[step.inputs[0]];
    const Shape& out = network_.shapes[step.output];
    const Node& node = network_.graph.nodes[step.node];
    return {.outer = batch_ * in[0],
            .height = in[1],
            .width = in[2],
            .inner = 1,
            .out_height = out[1],
            .out_width = out[2],
            .kernel = node.kernel,
            .stride = node.stride};
  }

  const Network& network_;
  const Weights& weights_;
  Parallel& parallel_;
  DenseSegment segment_;
  std::int64_t batch_;
  std::map<std::size_t, std::size_t> offsets_;  // value -> its place in the arena
  std::size_t arena_bytes_ = 0;
};

class BuiltinLibrary final : public DenseLibrary {
 public:
  BuiltinLibrary(Network& network, Parallel& parallel, Backend backend)
      : network_(network), parallel_(parallel) {
    for (std::size_t i = 0; i < network.graph.nodes.size(); ++i) {
      if (const Op op = network.graph.nodes[i].op; op == Op::conv2d || op == Op::linear) {
        Layer& layer = weights_[i];
        layer.winograd = winograd_layer(network, i, backend);
        layer.own = std::move(network.parameters[i]);
        if (layer.winograd) {
          layer.own.weight = {};
        }
      }
    }
  }

  std::string name() const override { return "built-in"; }
  std::unique_ptr<CompiledSegment> compile(const DenseSegment& segment, std::int64_t batch) override {
    return std::make_unique<BuiltinSegment>(network_, weights_, parallel_, segment, batch);
  }

 private:
  const Network& network_;
  Parallel& parallel_;
  Weights weights_;
};

}  // namespace

std::unique_ptr<DenseLibrary> make_builtin_library(Network& network, Parallel& parallel, Backend backend) {
  return std::make_unique<BuiltinLibrary>(network, parallel, backend);
}

}  // namespace trit::runtime

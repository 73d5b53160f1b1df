// SPDX-License-Identifier: MIT
#include "runtime/cuda/program.h"

#include <algorithm>
#include <cstring>

#include "runtime/memory_plan.h"

namespace trit::runtime::gpu {
namespace {

std::size_t float_bytes(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

}  // namespace

// Steps are collected as functions of the arena's address, since the arena is allocated when all are known.
class Program::Builder {
 public:
  Builder(Program& program, const ProgramParts& parts, Slot& slot)
      : program_(program),
        parts_(parts),
        slot_(slot),
        nodes_(parts.network.graph.nodes),
        alias_(nodes_.size()),
        readers_(nodes_.size(), 0),
        buffer_of_(nodes_.size(), kNone),
        deferred_(nodes_.size()) {}

  void build(bool bytes_in, const Normalize& normalize) {
    find_aliases();
    produce(0, 0);
    for (const auto& step : parts_.schedule.steps) {
      if (const auto* ternary = std::get_if<BitLinearStep>(&step)) {
        add_ternary(*ternary);
      } else {
        for (const DenseStep& dense : std::get<DenseSegment>(step).steps) {
          add_dense(dense);
        }
      }
    }
    consume(nodes_.size() - 1);
    allocate();
    program_.device_input_ = at<float>(buffer_of_[0]);
    program_.device_output_ = at<float>(buffer_of_[alias_.back()]);
    if (bytes_in) {
      Normalize args = normalize;
      args.pixels = reinterpret_cast<const std::uint8_t*>(program_.pixels_.get());
      args.x = program_.device_input_;
      args.images = program_.images_;
      program_.steps_.emplace_back([args, stream = stream()] { gpu::normalize(args, stream); });
    }
    for (const auto& make : makers_) {
      program_.steps_.push_back(make());
    }
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  /// Bias and ReLU of a convolution that the maximum pool behind it adds.
  struct Deferred {
    bool active = false;
    const float* bias = nullptr;
    bool relu = false;
  };

  cuda::Stream stream() const { return slot_.stream.get(); }
  const Shape& shape(std::size_t node) const { return parts_.network.shapes[node]; }
  std::int64_t values(std::size_t node) const { return program_.images_ * numel(shape(node)); }

  void find_aliases() {
    std::vector<bool> renames(nodes_.size(), false);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      alias_[i] = nodes_[i].op == Op::flatten ? alias_[nodes_[i].inputs[0]] : i;
      for (const std::size_t input : nodes_[i].inputs) {
        ++readers_[input];
      }
    }
  }

  std::size_t buffer(std::size_t bytes) {
    buffers_.push_back({bytes, makers_.size(), makers_.size()});
    return buffers_.size() - 1;
  }
  void produce(std::size_t node, std::size_t first) {
    buffer_of_[node] = buffer(float_bytes(values(node)));
    buffers_.back().first = first;
  }
  std::size_t consume(std::size_t node) {
    const std::size_t index = buffer_of_[alias_[node]];
    buffers_[index].last = makers_.size();
    return index;
  }
  template <typename Value>
  Value* at(std::size_t index) const {
    return reinterpret_cast<Value*>(program_.arena_.get() + plan_.offsets[index]);
  }

  void add(std::function<std::function<void()>()> maker) { makers_.push_back(std::move(maker)); }

  void allocate() {
    plan_ = plan_memory(buffers_);
    program_.arena_ = allocate_device(plan_.bytes, "activations");
    program_.workspace_ = allocate_device(workspace_bytes_, "the products' workspace");
    program_.device_bytes_ += plan_.bytes + workspace_bytes_;
    if (workspace_bytes_ > 0) {
      check(cudaMemsetAsync(program_.workspace_.get(), 0, workspace_bytes_, stream()), "the workspace");
    }
  }

  void add_ternary(const BitLinearStep& step) {
    const LayerWeights& layer = parts_.weights.of(step.node);
    const Node& node = nodes_[step.node];
    const std::int64_t in = layer.in_features;
    const std::int64_t rows = values(step.input) / in;
    const std::size_t x = consume(step.input);
    const std::size_t q = buffer(static_cast<std::size_t>(rows * cuda::quantized_row_bytes(in)));
    const std::size_t scale = buffer(float_bytes(rows));
    produce(step.output, makers_.size());
    const std::size_t y = buffer_of_[step.output];
    const cuda::ProductPlan plan = parts_.plans.plan(rows, layer.out_features, in);
    workspace_bytes_ = std::max(
        workspace_bytes_, cuda::product_workspace_bytes(parts_.device, plan, rows, layer.out_features, in));
    // The product may start while norm_quant ends, and norm_quant while the layer in front of it does: what
    // they read before they wait for it is older.
    const bool programmatic = parts_.device.compute_capability >= 90;
    const bool relu = step.relu;
    add([=, this, &layer, &node] {
      const cuda::NormQuant quantize{.x = at<float>(x),
                                     .tokens = rows,
                                     .in_features = in,
                                     .x_stride = in,
                                     .norm = node.norm,
                                     .norm_weight = layer.norm_weight,
                                     .eps = node.eps,
                                     .q = at<std::int8_t>(q),
                                     .scale = at<float>(scale),
                                     .programmatic = programmatic};
      const cuda::Product product{.weights = layer.ternary,
                                  .out_features = layer.out_features,
                                  .in_features = in,
                                  .q = quantize.q,
                                  .token_scale = quantize.scale,
                                  .tokens = rows,
                                  .weight_scale = layer.scale,
                                  .granularity = layer.granularity,
                                  .bias = layer.bias,
                                  .y = at<float>(y),
                                  .workspace = program_.workspace_.get(),
                                  .programmatic = programmatic};
      const BiasRelu after{at<float>(y), at<float>(y), rows * layer.out_features, 1, 1, nullptr, true};
      return [=, device = parts_.device, stream = stream()] {
        cuda::norm_quant(device, quantize, stream);
        cuda::product(device, plan, product, stream);
        if (relu) {
          bias_relu(after, stream);
        }
      };
    });
  }

  void add_dense(const DenseStep& step) {
    const Node& node = nodes_[step.node];
    switch (node.op) {
      case Op::conv2d:
        return add_convolution(step, node);
      case Op::linear:
        return add_linear(step);
      case Op::max_pool2d:
      case Op::avg_pool2d:
        return add_pool(step, node);
      case Op::relu: {
        const std::size_t x = consume(step.inputs[0]);
        produce(step.output, makers_.size());
        return add_bias_relu(x, buffer_of_[step.output], step.output, 1, nullptr, true);
      }
      case Op::add: {
        const std::size_t a = consume(step.inputs[0]);
        const std::size_t b = consume(step.inputs[1]);
        produce(step.output, makers_.size());
        const std::size_t y = buffer_of_[step.output];
        const std::int64_t count = values(step.output);
        return add([=, this] {
          return [a = at<float>(a), b = at<float>(b), y = at<float>(y), count, stream = stream()] {
            gpu::add(a, b, y, count, stream);
          };
        });
      }
      default:  // flatten: an alias
        return;
    }
  }

  void add_bias_relu(std::size_t x, std::size_t y, std::size_t node, std::int64_t channels, const float* bias,
                     bool relu) {
    const std::int64_t count = values(node);
    const std::int64_t plane = count / program_.images_ / channels;
    add([=, this] {
      const BiasRelu args{at<float>(x), at<float>(y), count, channels, plane, bias, relu};
      return [args, stream = stream()] { bias_relu(args, stream); };
    });
  }

  /// Whether the only reader of a step's result is a maximum pool.
  bool only_pooled(std::size_t node) const {
    if (readers_[node] != 1) {
      return false;
    }
    const auto reader = std::find_if(nodes_.begin(), nodes_.end(), [&](const Node& at) {
      return std::find(at.inputs.begin(), at.inputs.end(), node) != at.inputs.end();
    });
    return reader->op == Op::max_pool2d;
  }

  void add_convolution(const DenseStep& step, const Node& node) {
    const Shape& in = shape(step.inputs[0]);
    const Shape& out = shape(step.output);
    const Shape& weight = parts_.network.parameters[step.node].weight_shape;
    const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
    program_.convolutions_.push_back(slot_.cudnn->plan({.batch = narrow(program_.images_),
                                                        .channels = narrow(in[0]),
                                                        .height = narrow(in[1]),
                                                        .width = narrow(in[2]),
                                                        .out_channels = narrow(out[0]),
                                                        .out_height = narrow(out[1]),
                                                        .out_width = narrow(out[2]),
                                                        .kernel_height = narrow(weight[2]),
                                                        .kernel_width = narrow(weight[3]),
                                                        .stride = narrow(node.stride),
                                                        .padding = narrow(node.padding)}));
    const ConvolutionPlan* const plan = program_.convolutions_.back().get();
    const LayerWeights& layer = parts_.weights.of(step.node);
    const std::size_t x = consume(step.inputs[0]);
    const std::size_t workspace = buffer(plan->workspace_bytes());
    produce(step.output, makers_.size());
    const std::size_t y = buffer_of_[step.output];
    add([=, this, &layer] {
      return [=, x = at<float>(x), workspace = at<void>(workspace), y = at<float>(y), w = layer.weight] {
        plan->run(x, w, workspace, y);
      };
    });
    if (only_pooled(step.output)) {
      deferred_[step.output] = {true, layer.bias, step.relu};
    } else if (layer.bias != nullptr || step.relu) {
      consume(step.output);
      add_bias_relu(y, y, step.output, out[0], layer.bias, step.relu);
    }
  }

  void add_linear(const DenseStep& step) {
    const LayerWeights& layer = parts_.weights.of(step.node);
    const std::int64_t rows = values(step.inputs[0]) / layer.in_features;
    const std::size_t x = consume(step.inputs[0]);
    produce(step.output, makers_.size());
    const std::size_t y = buffer_of_[step.output];
    add([=, this, &layer] {
      return [=, cublas = slot_.cublas.get(), x = at<float>(x), y = at<float>(y), &layer] {
        cublas->linear(rows, layer.in_features, layer.out_features, x, layer.weight, y);
      };
    });
    if (layer.bias != nullptr || step.relu) {
      consume(step.output);
      // The outputs are the last dimension: each value is the next channel's.
      const std::int64_t count = rows * layer.out_features;
      add([=, this, &layer, relu = step.relu] {
        const BiasRelu args{at<float>(y), at<float>(y), count, layer.out_features, 1, layer.bias, relu};
        return [args, stream = stream()] { bias_relu(args, stream); };
      });
    }
  }

  void add_pool(const DenseStep& step, const Node& node) {
    const Shape& in = shape(step.inputs[0]);
    const Shape& out = shape(step.output);
    const Deferred deferred = deferred_[alias_[step.inputs[0]]];
    const std::size_t x = consume(step.inputs[0]);
    produce(step.output, makers_.size());
    const std::size_t y = buffer_of_[step.output];
    const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
    Pool args{.x = nullptr,
              .y = nullptr,
              .images = program_.images_,
              .channels = narrow(in[0]),
              .height = narrow(in[1]),
              .width = narrow(in[2]),
              .out_height = narrow(out[1]),
              .out_width = narrow(out[2]),
              .kernel = narrow(node.kernel),
              .stride = narrow(node.stride),
              .maximum = node.op == Op::max_pool2d,
              .bias = deferred.bias,
              .relu = deferred.relu};
    add([=, this]() mutable {
      args.x = at<float>(x);
      args.y = at<float>(y);
      return [args, stream = stream()] { pool(args, stream); };
    });
  }

  Program& program_;
  const ProgramParts& parts_;
  Slot& slot_;
  const std::vector<Node>& nodes_;
  std::vector<std::size_t> alias_;      // the node whose memory holds a node's value
  std::vector<std::size_t> readers_;    // how many nodes read a node
  std::vector<std::size_t> buffer_of_;  // by node
  std::vector<Deferred> deferred_;      // by node
  std::vector<Lifetime> buffers_;
  std::vector<std::function<std::function<void()>()>> makers_;
  MemoryPlan plan_;
  std::size_t workspace_bytes_ = 0;
};

Program::Program(const ProgramParts& parts, Slot& slot, std::int64_t images, bool bytes_in,
                 const Normalize& normalize)
    : stream_(slot.stream.get()), images_(images) {
  const std::int64_t inputs = images * numel(parts.network.shapes.front());
  input_bytes_ = bytes_in ? static_cast<std::size_t>(inputs) : float_bytes(inputs);
  output_bytes_ = float_bytes(images * numel(parts.network.shapes.back()));
  input_ = allocate_pinned(input_bytes_);
  output_ = allocate_pinned(output_bytes_);
  std::memset(input_.get(), 0, input_bytes_);
  if (bytes_in) {
    pixels_ = allocate_device(input_bytes_, "images");
    device_bytes_ += input_bytes_;
  }
  Builder(*this, parts, slot).build(bytes_in, normalize);
  // Once eagerly: libraries load their kernels at a first call, which a capture does not allow.
  run_steps();
  check(cudaStreamSynchronize(stream_), "the model's first run");
  graph_ = capture_graph(stream_, [this] { run_steps(); });
}

void Program::run_steps() {
  std::byte* const to = pixels_ ? pixels_.get() : reinterpret_cast<std::byte*>(device_input_);
  check(cudaMemcpyAsync(to, input_.get(), input_bytes_, cudaMemcpyHostToDevice, stream_),
        "copying the input");
  for (const auto& step : steps_) {
    step();
  }
  check(cudaMemcpyAsync(output_.get(), device_output_, output_bytes_, cudaMemcpyDeviceToHost, stream_),
        "copying the output");
}

void Program::start() { check(cudaGraphLaunch(graph_.get(), stream_), "launching a model"); }
void Program::finish() { check(cudaStreamSynchronize(stream_), "running a model"); }

}  // namespace trit::runtime::gpu

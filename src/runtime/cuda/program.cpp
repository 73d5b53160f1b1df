// SPDX-License-Identifier: MIT
#include "runtime/cuda/program.h"

#include <algorithm>
#include <cstring>

namespace trit::runtime::gpu {
namespace {

std::size_t float_bytes(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

}  // namespace

ProgramBuilder::ProgramBuilder(Program& program, const ProgramParts& parts, Slot& slot)
    : program_(program),
      parts_(parts),
      slot_(slot),
      nodes_(parts.network.graph.nodes),
      buffer_of_(nodes_.size()) {}

void ProgramBuilder::build(bool bytes_in, const Normalize& normalize) {
  PlannedSteps& steps = program_.steps_;
  const std::size_t input = buffer_of_[0] = new_values(0);
  if (bytes_in) {
    add({input}, [=, this_pixels = program_.pixels_.get(), images = images(),
                  stream = stream()](const Addresses& memory) {
      Normalize args = normalize;
      args.pixels = reinterpret_cast<const std::uint8_t*>(this_pixels);
      args.x = memory.at<float>(input);
      args.images = images;
      gpu::normalize(args, stream);
    });
  }
  for (Step step : parts_.steps) {  // a copy: an operator takes out what it does itself
    const std::size_t before = steps.buffers();
    const Result result = nodes_[step.node].op->lower_on_gpu(*this, step);
    buffer_of_[step.result] = activate(step, result, result.buffer >= before);
  }
  steps.keep(buffer_of_.back());
  steps.plan();
  program_.arena_ = allocate_device(steps.arena_bytes(), "activations");
  program_.workspace_ = allocate_device(workspace_bytes_, "the products' workspace");
  program_.device_bytes_ += steps.arena_bytes() + workspace_bytes_;
  if (workspace_bytes_ > 0) {
    check(cudaMemsetAsync(program_.workspace_.get(), 0, workspace_bytes_, stream()), "the workspace");
  }
  program_.device_input_ = program_.arena_.get() + steps.offset(input);
  program_.device_output_ = program_.arena_.get() + steps.offset(buffer_of_.back());
}

std::size_t ProgramBuilder::input(const Step& step, std::size_t index) const {
  return buffer_of_[nodes_[step.node].inputs[index]];
}

std::size_t ProgramBuilder::new_values(std::size_t node) { return new_buffer(float_bytes(values(node))); }

const ConvolutionPlan& ProgramBuilder::plan_convolution(const Convolution& convolution) {
  if (!slot_.cudnn) {
    slot_.cudnn = make_cudnn(stream());
  }
  program_.convolutions_.push_back(slot_.cudnn->plan(convolution));
  return *program_.convolutions_.back();
}

Cublas& ProgramBuilder::cublas() {
  if (!slot_.cublas) {
    slot_.cublas = make_cublas(stream());
  }
  return *slot_.cublas;
}

cuda::ProductPlan ProgramBuilder::plan_product(std::int64_t tokens, std::int64_t out_features,
                                               std::int64_t in_features, std::int64_t group,
                                               DataType group_scale_type,
                                               TokenScaleGranularity token_scales) {
  // Tuned plans are of products without group scales.
  const cuda::ProductPlan plan = group == 0 ? parts_.plans.plan(tokens, out_features, in_features)
                                            : cuda::default_plan(device(), tokens, out_features, in_features,
                                                                 group, group_scale_type, token_scales);
  workspace_bytes_ =
      std::max(workspace_bytes_,
               cuda::product_workspace_bytes(device(), plan, tokens, out_features, in_features, group));
  return plan;
}

/// Bias, ReLU and pool of a step; the pool adds bias and ReLU to what it reads, where it can.
std::size_t ProgramBuilder::activate(const Step& step, Result result, bool in_place) {
  const std::size_t before_pool = step.pool ? nodes_[*step.pool].inputs[0] : step.result;
  const bool pool_adds = step.pool && !result.channels_last;
  if ((result.bias != nullptr || step.relu) && !pool_adds) {
    const std::int64_t count = values(before_pool);
    const std::size_t x = result.buffer;
    const std::size_t y = in_place ? x : new_values(before_pool);
    add({x, y}, [=, relu = step.relu, images = images(), stream = stream()](const Addresses& memory) {
      bias_relu({.x = memory.at<float>(x),
                 .y = memory.at<float>(y),
                 .count = count,
                 .channels = result.channels,
                 .plane = result.channels_last ? 1 : count / images / result.channels,
                 .bias = result.bias,
                 .relu = relu},
                stream);
    });
    result = {.buffer = y};
  }
  if (!step.pool) {
    return result.buffer;
  }
  const runtime::Pool& pool = *nodes_[*step.pool].op->pool();
  const Shape& in = shape(before_pool);
  const Shape& out = shape(*step.pool);
  const std::size_t y = new_values(*step.pool);
  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  Pool args{.x = nullptr,
            .y = nullptr,
            .images = images(),
            .channels = narrow(in[0]),
            .height = narrow(in[1]),
            .width = narrow(in[2]),
            .out_height = narrow(out[1]),
            .out_width = narrow(out[2]),
            .kernel = narrow(pool.kernel),
            .stride = narrow(pool.stride),
            .maximum = pool.maximum,
            .bias = result.bias,
            .relu = step.relu && pool_adds};
  add({result.buffer, y}, [=, x = result.buffer, stream = stream()](const Addresses& memory) mutable {
    args.x = memory.at<float>(x);
    args.y = memory.at<float>(y);
    gpu::pool(args, stream);
  });
  return y;
}

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
  ProgramBuilder(*this, parts, slot).build(bytes_in, normalize);
  // Once eagerly: libraries load their kernels at a first call, which a capture does not allow.
  run_steps();
  check(cudaStreamSynchronize(stream_), "the model's first run");
  graph_ = capture_graph(stream_, [this] { run_steps(); });
}

void Program::run_steps() {
  std::byte* const to = pixels_ ? pixels_.get() : device_input_;
  check(cudaMemcpyAsync(to, input_.get(), input_bytes_, cudaMemcpyHostToDevice, stream_),
        "copying the input");
  steps_.run(arena_.get());
  check(cudaMemcpyAsync(output_.get(), device_output_, output_bytes_, cudaMemcpyDeviceToHost, stream_),
        "copying the output");
}

void Program::start() { check(cudaGraphLaunch(graph_.get(), stream_), "launching a model"); }
void Program::finish() { check(cudaStreamSynchronize(stream_), "running a model"); }

}  // namespace trit::runtime::gpu

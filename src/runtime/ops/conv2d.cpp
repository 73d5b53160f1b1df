// SPDX-License-Identifier: MIT
//
// conv2d: cross-correlation of an image with zeros outside, plus a bias. On a CPU 3x3 convolutions run by
// Winograd's algorithm where that is faster, the others by the library for float layers (dense.h); on a GPU
// all run by cuDNN.
#include <utility>

#include "runtime/dense.h"
#include "runtime/ops/float_weights.h"
#include "runtime/ops/operator.h"
#include "runtime/winograd/winograd.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class Conv2d final : public Operator {
 public:
  explicit Conv2d(const io::JsonObject& node) {
    size_.stride = node.integer("stride", 1, kMaxWindow);
    size_.padding = node.integer("padding", 0, kMaxWindow);
  }

  Shape load(NodeFile& file) override {
    const Shape& x = file.image();
    floats_.weight = file.floats("weight", {-1, x[0], -1, -1});
    const Shape shape = file.shape("weight");
    floats_.bias = file.optional_floats("bias", {shape[0]});
    file.set_layer_shape(shape);
    size_.channels = x[0];
    size_.height = x[1];
    size_.width = x[2];
    size_.out_channels = shape[0];
    size_.kernel_height = shape[2];
    size_.kernel_width = shape[3];
    size_.out_height = file.positions(x[1], shape[2], size_.stride, size_.padding);
    size_.out_width = file.positions(x[2], shape[3], size_.stride, size_.padding);
    return {size_.out_channels, size_.out_height, size_.out_width};
  }

  bool fold_scale_shift(std::span<const float> scale, std::span<const float> shift) override {
    return floats_.fold(scale, shift);
  }

  void prepare(const CpuLibraries& libraries) override {
    if (size_.stride == 1 && size_.kernel_height == 3 && size_.kernel_width == 3 &&
        !libraries.dense.beats_winograd(size_.channels)) {
      const winograd::Kernel* const kernel = winograd_kernel(libraries.backend);
      if (WinogradConvolution::pays(kernel, winograd_shape(), floats_.weight)) {
        winograd_ = std::make_unique<const WinogradConvolution>(*kernel, size_.channels, size_.out_channels,
                                                                floats_.weight, floats_.bias);
        winograd_pixels_ = libraries.dense.has_orders();
      }
    }
    if (!winograd_) {
      dense_ = libraries.dense.convolution(size_, std::move(floats_.weight), std::move(floats_.bias));
    }
    floats_ = {};
  }

  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    return winograd_ ? lower_winograd(builder, step) : dense_->lower(builder, step, builder.input(step));
  }

#ifdef TRIT_HAVE_CUDA
  void upload(gpu::Weights& weights) override { floats_.upload(weights); }

  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
    const gpu::ConvolutionPlan& plan = builder.plan_convolution({.batch = narrow(builder.images()),
                                                                 .channels = narrow(size_.channels),
                                                                 .height = narrow(size_.height),
                                                                 .width = narrow(size_.width),
                                                                 .out_channels = narrow(size_.out_channels),
                                                                 .out_height = narrow(size_.out_height),
                                                                 .out_width = narrow(size_.out_width),
                                                                 .kernel_height = narrow(size_.kernel_height),
                                                                 .kernel_width = narrow(size_.kernel_width),
                                                                 .stride = narrow(size_.stride),
                                                                 .padding = narrow(size_.padding)});
    const std::size_t x = builder.input(step);
    const std::size_t workspace = builder.new_buffer(plan.workspace_bytes());
    const std::size_t y = builder.new_values(step.node);
    builder.add({x, workspace, y}, [=, &plan, weight = floats_.gpu_weight](const Addresses& memory) {
      plan.run(memory.at<float>(x), weight, memory.at<void>(workspace), memory.at<float>(y));
    });
    return {.buffer = y, .bias = floats_.gpu_bias, .channels = size_.out_channels};
  }
#endif

 private:
  ConvolutionShape winograd_shape() const {
    return {.channels = size_.channels,
            .height = size_.height,
            .width = size_.width,
            .out_channels = size_.out_channels,
            .padding = size_.padding};
  }

  /// Channels last unless row-major values are wanted next. A 2x2 max pool is part of it.
  Value lower_winograd(ProgramBuilder& builder, Step& step) const {
    ConvolutionShape shape = winograd_shape();
    shape.relu = std::exchange(step.relu, false);
    const Pool* const pool = builder.pool_of(step);
    Shape out{builder.batch(), size_.out_channels, size_.out_height, size_.out_width};
    if (pool != nullptr && step.pool && pool->maximum && pool->kernel == 2 && pool->stride == 2) {
      shape.pool = true;
      out = builder.shape(*step.pool);
      step.pool.reset();
    }
    const bool y_in_planes = !winograd_pixels_ || builder.read_as_rows(step.result);
    Value x = builder.input(step);
    if (x.inner != 1) {
      x = builder.in_order(x, size_.channels);
    }
    const Value y = builder.new_value(std::move(out), y_in_planes ? 1 : size_.out_channels);
    const auto order = [](std::int64_t inner) {
      return inner == 1 ? ImageOrder::planes : ImageOrder::pixels;
    };
    builder.add({x.buffer, y.buffer}, [&parallel = builder.parallel(), &convolution = *winograd_, shape,
                                       batch = builder.batch(), from = x.buffer, x_order = order(x.inner),
                                       to = y.buffer, y_order = order(y.inner)](const Addresses& memory) {
      convolution.run(parallel, shape, batch, memory.at<float>(from), x_order, memory.at<float>(to), y_order);
    });
    return y;
  }

  builtin::Image size_{};  // without the batch
  FloatWeights floats_;
  std::unique_ptr<const WinogradConvolution> winograd_;
  bool winograd_pixels_ = false;  // it may write channels last
  std::unique_ptr<DenseLayer> dense_;
};

}  // namespace

extern const OperatorType kConv2d;  // table.cpp
const OperatorType kConv2d{.name = "conv2d", .has_tensors = true, .make = make_operator<Conv2d>};

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// batch_norm: (x - mean) / sqrt(var + eps) * weight + bias of each channel, the first dimension, with the
// statistics of training. Computed as x * scale + shift, with scale and shift formed in double and rounded
// once; a part of the conv2d or linear in front of it where that may be (fusion.h).
//
// With u = 2^-24 a result is within 3 u (|x scale| + |shift|) + 2^-149 of the formula: scale, shift, product
// and sum are rounded once each.
#include <algorithm>
#include <cmath>

#include "runtime/ops/operator.h"
#include "runtime/program.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

/// Of `values` floats of `inner` channels in turn.
void scale_shift(std::int64_t values, std::int64_t inner, const float* scale, const float* shift,
                 const float* x, float* y) {
  for (std::int64_t i = 0; i < values; i += inner) {
    for (std::int64_t c = 0; c < inner; ++c) {
      y[i + c] = x[i + c] * scale[c] + shift[c];
    }
  }
}

class BatchNorm final : public Operator {
 public:
  explicit BatchNorm(const io::JsonObject& node) : eps_(node.positive("eps", 1e-5F)) {}

  Shape load(NodeFile& file) override {
    const Shape& x = file.input();
    const Shape wanted{x[0]};
    const std::vector<float> mean = file.floats("running_mean", wanted);
    const std::vector<float> variance = file.floats("running_var", wanted);
    const std::vector<float> weight = file.optional_floats("weight", wanted);
    const std::vector<float> bias = file.optional_floats("bias", wanted);
    file.ignore("num_batches_tracked");  // of PyTorch's module
    file.set_layer_shape(wanted);
    for (std::size_t c = 0; c < mean.size(); ++c) {
      const auto at = [c](const std::vector<float>& values, double otherwise) {
        return values.empty() ? otherwise : static_cast<double>(values[c]);
      };
      if (variance[c] < 0) {
        file.refuse("running_var[" + std::to_string(c) + "] is " + std::to_string(variance[c]) +
                    ", wanted 0 or more");
      }
      const double scale = at(weight, 1) / std::sqrt(at(variance, 0) + static_cast<double>(eps_));
      scale_.push_back(static_cast<float>(scale));
      shift_.push_back(static_cast<float>(at(bias, 0) - at(mean, 0) * scale));
      if (!std::isfinite(scale_[c]) || !std::isfinite(shift_[c])) {
        file.refuse("channel " + std::to_string(c) + " is scaled by " + std::to_string(scale_[c]) +
                    " and shifted by " + std::to_string(shift_[c]) + ", wanted finite numbers");
      }
    }
    return x;
  }

  bool fold_into(Operator& before) override {
    if (!before.fold_scale_shift(scale_, shift_)) {
      return false;
    }
    scale_ = {};
    shift_ = {};
    return true;
  }

  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    const Value x = builder.input(step);
    const Value y = builder.new_value(x.shape, x.inner);
    // The zeros that fill the last block stay zeros.
    std::vector<float> scale = scale_, shift = shift_;
    scale.resize(static_cast<std::size_t>(x.blocks() * x.inner));
    shift.resize(static_cast<std::size_t>(x.blocks() * x.inner));
    builder.add({x.buffer, y.buffer},
                [&parallel = builder.parallel(), scale = std::move(scale), shift = std::move(shift),
                 blocks = builder.batch() * x.blocks(), x, to = y.buffer](const Addresses& memory) {
                  const std::int64_t values = x.size() / blocks;  // of one block of channels of one image
                  const std::int64_t together = (4096 + values - 1) / values;
                  parallel.run((blocks + together - 1) / together, [&](std::int64_t task) {
                    for (std::int64_t n = task * together; n < std::min((task + 1) * together, blocks); ++n) {
                      const std::int64_t channel = n % x.blocks() * x.inner;
                      scale_shift(values, x.inner, scale.data() + channel, shift.data() + channel,
                                  memory.at<float>(x.buffer) + n * values, memory.at<float>(to) + n * values);
                    }
                  });
                });
    return y;
  }

#ifdef TRIT_HAVE_CUDA
  void upload(gpu::Weights& weights) override {
    gpu_scale_ = weights.floats(scale_);
    gpu_shift_ = weights.floats(shift_);
  }

  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const std::size_t x = builder.input(step);
    const std::size_t y = builder.new_values(step.node);
    const std::int64_t count = builder.values(step.node);
    const std::int64_t channels = builder.shape(step.node)[0];
    builder.add({x, y}, [=, this, plane = count / builder.images() / channels,
                         stream = builder.stream()](const Addresses& memory) {
      gpu::scale_shift({.x = memory.at<float>(x),
                        .y = memory.at<float>(y),
                        .count = count,
                        .channels = channels,
                        .plane = plane,
                        .scale = gpu_scale_,
                        .shift = gpu_shift_},
                       stream);
    });
    return {.buffer = y};
  }
#endif

 private:
  float eps_;
  std::vector<float> scale_, shift_;
#ifdef TRIT_HAVE_CUDA
  const float* gpu_scale_ = nullptr;
  const float* gpu_shift_ = nullptr;
#endif
};

}  // namespace

extern const OperatorType kBatchNorm;  // table.cpp
const OperatorType kBatchNorm{.name = "batch_norm", .has_tensors = true, .make = make_operator<BatchNorm>};

}  // namespace trit::runtime

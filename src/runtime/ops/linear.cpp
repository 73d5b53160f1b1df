// SPDX-License-Identifier: MIT
//
// linear: float x Wᵀ + bias over the last dimension; those before it are rows.
#include <utility>

#include "runtime/dense.h"
#include "runtime/ops/float_weights.h"
#include "runtime/ops/operator.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class Linear final : public Operator {
 public:
  explicit Linear(const io::JsonObject& /*node*/) {}

  Shape load(NodeFile& file) override {
    Shape shape = file.input();
    in_ = shape.back();
    floats_.weight = file.floats("weight", {-1, in_});
    out_ = file.shape("weight")[0];
    floats_.bias = file.optional_floats("bias", {out_});
    file.set_layer_shape({out_, in_});
    is_vector_ = shape.size() == 1;
    shape.back() = out_;
    return shape;
  }

  bool fold_scale_shift(std::span<const float> scale, std::span<const float> shift) override {
    // Of several dimensions the first is the channel, and the outputs are the last.
    return is_vector_ && floats_.fold(scale, shift);
  }

  bool reads_rows() const override { return true; }
  void prepare(const CpuLibraries& libraries) override {
    dense_ =
        libraries.dense.linear(in_, out_, std::exchange(floats_.weight, {}), std::exchange(floats_.bias, {}));
  }
  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    return dense_->lower(builder, step, builder.as_rows(builder.input(step)));
  }

#ifdef TRIT_HAVE_CUDA
  void upload(gpu::Weights& weights) override { floats_.upload(weights); }

  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    gpu::Cublas& cublas = builder.cublas();
    const std::size_t x = builder.input(step);
    const std::size_t y = builder.new_values(step.node);
    const std::int64_t rows = builder.values(step.node) / out_;
    builder.add({x, y}, [=, this, &cublas](const Addresses& memory) {
      cublas.linear(rows, in_, out_, memory.at<float>(x), floats_.gpu_weight, memory.at<float>(y));
    });
    // The outputs are the last dimension: each value is the next channel's.
    return {.buffer = y, .bias = floats_.gpu_bias, .channels = out_, .channels_last = true};
  }
#endif

 private:
  std::int64_t in_ = 0, out_ = 0;
  bool is_vector_ = false;  // rows are images
  FloatWeights floats_;
  std::unique_ptr<DenseLayer> dense_;
};

}  // namespace

extern const OperatorType kLinear;  // table.cpp
const OperatorType kLinear{.name = "linear", .has_tensors = true, .make = make_operator<Linear>};

}  // namespace trit::runtime

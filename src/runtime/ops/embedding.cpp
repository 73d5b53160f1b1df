// SPDX-License-Identifier: MIT
//
// embedding: rows of a ternary matrix, by indexes that are the model's input; rotated back where the file says
// that its rows are rotated. docs/numerics.md has its bits.
#include <algorithm>

#include "runtime/dense.h"
#include "runtime/ops/operator.h"
#include "runtime/program.h"
#include "trit/error.h"
#include "trit/rotation.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

/// Indexes are float32, which holds every whole number up to this.
constexpr std::int64_t kMaxRows = std::int64_t{1} << 24;

class Embedding final : public Operator {
 public:
  explicit Embedding(const io::JsonObject& node)
      : name_(node.string("name")), in_(node.integer("features", 1, (1 << 24) - 1)) {}

  Shape load(NodeFile& file) override {
    codes_ = file.codes("weight", in_);
    rows_ = file.shape("weight")[0];
    if (rows_ > kMaxRows) {
      file.refuse(std::to_string(rows_) + " rows, wanted at most " + std::to_string(kMaxRows) +
                  ", since indexes are float32");
    }
    scale_ = file.scales("weight_scale", rows_, in_, group_);
    rotation_ = file.rotation(Rotated::look_ups, "weight", in_);
    if (!codes_.empty()) {
      check(table(), file.what() + ": tensor " + name_ + ".weight");
    }
    file.set_layer_shape({rows_, in_});
    Shape shape = file.input();
    shape.push_back(in_);
    return shape;
  }

  std::int64_t index_limit() const override { return rows_; }
  bool reads_rows() const override { return true; }

  void prepare(const CpuLibraries& libraries) override {
    kernels_ = &cpu_kernels_for(libraries.backend);
    stored_.assign(codes_.begin(), codes_.end());  // `codes_` points into the file
    codes_ = stored_;
  }

  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    const Value x = builder.as_rows(builder.input(step));
    const Value y = builder.new_value(builder.shape(step.node));
    const auto count = static_cast<std::size_t>(x.size());
    const std::size_t rows = builder.new_buffer(count * sizeof(std::int64_t));
    builder.add({x.buffer, rows, y.buffer}, [=, this, &parallel = builder.parallel(), from = x.buffer,
                                             to = y.buffer](const Addresses& memory) {
      const float* const indexes = memory.at<float>(from);
      const std::span row(memory.at<std::int64_t>(rows), count);
      std::transform(indexes, indexes + count, row.begin(),
                     [](float index) { return static_cast<std::int64_t>(index); });
      const Rotation rotation = rotation_.view();
      look_up(*kernels_, parallel, table(), row, rotation_ ? &rotation : nullptr, memory.at<float>(to));
    });
    return y;
  }

#ifdef TRIT_HAVE_CUDA
  void upload(gpu::Weights& weights) override {
    scale_step_ = scale_.size() == 1 && group_ == 0 ? 0 : groups_of(in_, group_);
    gpu_codes_ = static_cast<const std::uint8_t*>(weights.bytes(std::as_bytes(codes_)));
    gpu_scale_ = weights.floats(scale_);
    gpu_signs_ = static_cast<const std::int8_t*>(weights.bytes(std::as_bytes(std::span(rotation_.signs))));
  }

  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const std::size_t x = builder.input(step);
    const std::size_t y = builder.new_values(step.node);
    const std::int64_t count = builder.values(step.node) / in_;
    builder.add({x, y}, [=, this, stream = builder.stream()](const Addresses& memory) {
      gpu::look_up({.indexes = memory.at<float>(x),
                    .count = count,
                    .codes = gpu_codes_,
                    .scale = gpu_scale_,
                    .features = in_,
                    .group = group_,
                    .scale_step = scale_step_,
                    .block = rotation_.block,
                    .signs = gpu_signs_,
                    .y = memory.at<float>(y)},
                   stream);
    });
    return {.buffer = y};
  }
#endif

 private:
  TernaryView table() const { return {rows_, in_, codes_, scale_, group_}; }

  std::string name_;
  std::int64_t in_, rows_ = 0;
  std::int64_t group_ = 0;  // inputs of a scale, 0 without group scales
  std::span<const std::uint8_t> codes_;
  std::vector<std::uint8_t> stored_;
  std::vector<float> scale_;
  RotatedInputs rotation_;
  const CpuKernels* kernels_ = nullptr;
#ifdef TRIT_HAVE_CUDA
  std::int64_t scale_step_ = 0;  // scales of a row, 0: one of the table
  const std::uint8_t* gpu_codes_ = nullptr;
  const float* gpu_scale_ = nullptr;
  const std::int8_t* gpu_signs_ = nullptr;
#endif
};

}  // namespace

extern const OperatorType kEmbedding;  // table.cpp
const OperatorType kEmbedding{.name = "embedding", .has_tensors = true, .make = make_operator<Embedding>};

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// bit_linear: a ternary layer over the last dimension, with the RMSNorm in front of it, and the rotation where
// the file says that its weights are rotated; docs/numerics.md has its bits.
#include <utility>

#include "runtime/ops/operator.h"
#include "runtime/program.h"
#include "trit/error.h"
#include "trit/rotation.h"
#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/program.h"
#endif

namespace trit::runtime {
namespace {

class BitLinear final : public Operator {
 public:
  explicit BitLinear(const io::JsonObject& node) {
    const std::string norm = node.string("norm");
    if (norm != "rms" && norm != "none") {
      throw Error(node.what() + ": \"norm\" is \"" + norm.substr(0, 60) + "\", wanted \"rms\" or \"none\"");
    }
    norm_ = norm == "rms" ? Norm::rms : Norm::none;
    eps_ = node.positive("eps", 1e-6F);
    if (node.contains("token_scale")) {
      const std::string scale = node.string("token_scale");
      if (scale != "token" && scale != "group") {
        throw Error(node.what() + ": \"token_scale\" is \"" + scale.substr(0, 60) +
                    "\", wanted \"token\" or \"group\"");
      }
      token_scale_per_group_ = scale == "group";
    }
  }

  Shape load(NodeFile& file) override {
    Shape shape = file.input();
    in_ = shape.back();
    codes_ = file.codes("weight", in_);
    out_ = file.shape("weight")[0];
    bias_ = file.optional_floats("bias", {out_});
    scale_ = file.scales("weight_scale", out_, in_, group_);
    if (token_scale_per_group_ && group_ == 0 && !scale_.empty()) {
      file.refuse("\"token_scale\" is \"group\", wanted \"token\", since the weights have no group scales");
    }
    rotation_ = file.rotation(Rotated::weights, "weight", in_);
    if (norm_ == Norm::rms) {
      norm_weight_ = file.optional_floats("norm.weight", {in_});
    }
    file.set_layer_shape({out_, in_});
    shape.back() = out_;
    return shape;
  }

  std::optional<TernaryView> ternary_matrix() const override {
    return TernaryView{out_, in_, codes_, scale_, group_};
  }
  void take_ternary(PackedLinear weight) override {
    weight_ = std::make_unique<const PackedLinear>(std::move(weight));
    codes_ = {};  // they point into the file
    scale_ = {};
  }

  bool reads_rows() const override { return true; }

  Value lower_on_cpu(ProgramBuilder& builder, Step& step) const override {
    const Value x = builder.as_rows(builder.input(step));
    const Value y = builder.new_value(builder.shape(step.node));
    const std::int64_t rows = x.size() / in_;
    const auto row_count = static_cast<std::size_t>(rows);
    const std::size_t q = builder.new_buffer(row_count * static_cast<std::size_t>(padded_in_features(in_)));
    const std::int64_t token_group = token_scale_per_group_ ? group_ : 0;
    const std::size_t scale =
        builder.new_buffer(row_count * static_cast<std::size_t>(groups_of(in_, token_group)) * sizeof(float));
    const std::size_t q_sum = builder.new_buffer(row_count * sizeof(std::int32_t));
    builder.add(
        {x.buffer, q, scale, q_sum, y.buffer},
        [=, this, &parallel = builder.parallel(), from = x.buffer, to = y.buffer](const Addresses& memory) {
          const NormQuant quantize{.x = memory.at<float>(from),
                                   .x_type = DataType::float32,
                                   .tokens = rows,
                                   .in_features = in_,
                                   .x_stride = in_,
                                   .norm = norm_,
                                   .norm_weight = pointer(norm_weight_),
                                   .eps = eps_,
                                   .q = memory.at<std::int8_t>(q),
                                   .scale = memory.at<float>(scale),
                                   .rstd = nullptr,
                                   .q_sum = memory.at<std::int32_t>(q_sum),
                                   .group = token_group};
          if (rotation_) {
            norm_rotate_quant(weight_->kernels(), parallel, quantize, rotation_.view());
          } else {
            norm_quant(weight_->kernels(), parallel, quantize);
          }
          weight_->product(parallel,
                           {.q = quantize.q,
                            .scale = quantize.scale,
                            .q_sum = quantize.q_sum,
                            .tokens = rows,
                            .group = token_group},
                           pointer(bias_), DataType::float32, memory.at<float>(to));
        });
    return y;
  }

#ifdef TRIT_HAVE_CUDA
  void upload(gpu::Weights& weights) override {
    granularity_ = scale_.size() > 1 ? ScaleGranularity::row : ScaleGranularity::tensor;
    gpu_bias_ = weights.floats(bias_);
    gpu_norm_weight_ = weights.floats(norm_weight_);
    gpu_codes_ = weights.ternary({out_, in_, codes_, scale_, group_});
    if (group_ != 0) {
      granularity_ = ScaleGranularity::group;
      gpu_group_scale_ = weights.group_scales({out_, in_, codes_, scale_, group_}, gpu_group_scale_type_);
      if (gpu_group_scale_ != nullptr) {
        scale_ = {};
      }
    } else {
      gpu_scale_ = weights.floats(scale_);
    }
    gpu_signs_ = static_cast<const std::int8_t*>(weights.bytes(std::as_bytes(std::span(rotation_.signs))));
  }

  gpu::Result lower_on_gpu(gpu::ProgramBuilder& builder, Step& step) const override {
    const cuda::Device device = builder.device();
    const std::int64_t rows = builder.values(step.node) / out_;
    const std::size_t x = builder.input(step);
    const std::size_t q = builder.new_buffer(static_cast<std::size_t>(rows * cuda::quantized_row_bytes(in_)));
    const std::int64_t token_group = token_scale_per_group_ ? group_ : 0;
    const std::size_t scale =
        builder.new_buffer(static_cast<std::size_t>(rows * groups_of(in_, token_group)) * sizeof(float));
    const std::size_t y = builder.new_values(step.node);
    const TokenScaleGranularity token_scales =
        token_scale_per_group_ ? TokenScaleGranularity::group : TokenScaleGranularity::token;
    const cuda::ProductPlan plan =
        builder.plan_product(rows, out_, in_, group_, gpu_group_scale_type_, token_scales);
    // The product may start while norm_quant ends, and norm_quant while the layer in front of it does: what
    // they read before they wait for it is older.
    const bool programmatic = device.compute_capability >= 90;
    builder.add({x, q, scale, y}, [=, this, &workspace = builder.product_workspace(),
                                   stream = builder.stream()](const Addresses& memory) {
      const cuda::NormQuant quantize{.x = memory.at<float>(x),
                                     .tokens = rows,
                                     .in_features = in_,
                                     .x_stride = in_,
                                     .norm = norm_,
                                     .norm_weight = gpu_norm_weight_,
                                     .eps = eps_,
                                     .q = memory.at<std::int8_t>(q),
                                     .scale = memory.at<float>(scale),
                                     .programmatic = programmatic,
                                     .group = token_group,
                                     .rotation_block = rotation_.block,
                                     .rotation_signs = gpu_signs_};
      const cuda::Product product{.weights = gpu_codes_,
                                  .out_features = out_,
                                  .in_features = in_,
                                  .q = quantize.q,
                                  .token_scale = quantize.scale,
                                  .tokens = rows,
                                  .weight_scale = gpu_scale_,
                                  .granularity = granularity_,
                                  .bias = gpu_bias_,
                                  .y = memory.at<float>(y),
                                  .workspace = workspace.get(),
                                  .programmatic = programmatic,
                                  .group = group_,
                                  .group_scale = gpu_group_scale_,
                                  .group_scale_type = gpu_group_scale_type_,
                                  .token_scales = token_scales};
      cuda::norm_quant(device, quantize, stream);
      cuda::product(device, plan, product, stream);
    });
    return {.buffer = y};
  }
#endif

 private:
  static const float* pointer(const std::vector<float>& values) {
    return values.empty() ? nullptr : values.data();
  }

  Norm norm_ = Norm::none;
  float eps_ = 0;
  std::int64_t in_ = 0, out_ = 0;
  std::int64_t group_ = 0;  // inputs of a weight scale, 0 without group scales
  bool token_scale_per_group_ = false;
  RotatedInputs rotation_;
  std::span<const std::uint8_t> codes_;
  std::vector<float> scale_, bias_, norm_weight_;
  std::unique_ptr<const PackedLinear> weight_;
#ifdef TRIT_HAVE_CUDA
  ScaleGranularity granularity_ = ScaleGranularity::tensor;
  const std::uint8_t* gpu_codes_ = nullptr;
  const float* gpu_scale_ = nullptr;
  const void* gpu_group_scale_ = nullptr;
  DataType gpu_group_scale_type_ = DataType::float32;
  const float* gpu_bias_ = nullptr;
  const float* gpu_norm_weight_ = nullptr;
  const std::int8_t* gpu_signs_ = nullptr;
#endif
};

}  // namespace

extern const OperatorType kBitLinear;  // table.cpp
const OperatorType kBitLinear{.name = "bit_linear", .has_tensors = true, .make = make_operator<BitLinear>};

}  // namespace trit::runtime

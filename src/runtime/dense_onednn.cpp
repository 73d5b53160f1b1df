// SPDX-License-Identifier: MIT
//
// Float layers by oneDNN. Each convolution chooses the layouts of its input and output (format_tag::any), and
// reorders are added only where a producer and a consumer disagree: from one convolution through its ReLU and
// pool to the next the activations stay in oneDNN's blocked layout. Weights are reordered once per layout,
// not per call.
//
// Where the user allows it and the CPU has AMX, a convolution of at least kMinChannels channels multiplies
// its floats there as pairs of bf16 numbers (bf16_pairs.h): three times the products at 16 times the rate,
// with 16 bits of each number. SimpleBitNetCNN's second convolution takes 13 us an image so, and 50 in fp32
// (oneDNN 3.2, one core).
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string_view>

#include "cpu/cpu_features.h"
#include "runtime/bf16_pairs.h"
#include "runtime/bf16_repair.h"
#include "runtime/dense.h"
#include "runtime/onednn_primitives.h"

namespace trit::runtime {
namespace {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;
constexpr auto kBf16 = dnnl::memory::data_type::bf16;
/// Fewer input channels leave most of a tile row (32 bf16) empty, and fp32 is as fast: 3 channels take 10 to
/// 14 us an image of 32x32 in either.
constexpr std::int64_t kMinChannels = 16;

/// What the layers of a library share.
struct Onednn {
  bool bf16_pairs;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  bool pairs_used = false;
};

/// The value's buffer in `layout`, reordered where it has another.
std::size_t buffer_in(ProgramBuilder& builder, const Onednn& onednn, const Value& value, const Desc& layout) {
  if (inner_of(layout) == value.inner) {
    return value.buffer;
  }
  const std::size_t buffer = builder.new_buffer(layout.get_size());
  add_reorder(builder, onednn.engine, {DNNL_ARG_FROM, layout_of(value), value.buffer},
              {DNNL_ARG_TO, layout, buffer});
  return buffer;
}

/// A new buffer in `layout`, as a value; in a layout that no value has it must be reordered.
Value value_in(ProgramBuilder& builder, const Desc& layout) {
  return {layout.get_dims(), inner_of(layout).value_or(0), builder.new_buffer(layout.get_size())};
}

class OnednnLayer : public DenseLayer {
 protected:
  OnednnLayer(Onednn& onednn, Dims dims, std::span<const float> weight, std::span<const float> bias)
      : onednn_(onednn),
        dims_(std::move(dims)),
        weight_(onednn.engine, dims_, weight),
        has_bias_(!bias.empty()) {
    if (has_bias_) {
      bias_ = Constant(onednn.engine, {dims_[0]}, bias);
    }
  }

  Desc bias_layout() const { return has_bias_ ? any_layout({dims_[0]}) : Desc(); }
  /// `pd` multiplies by `weight`.
  template <typename PrimitiveDesc>
  std::vector<std::pair<int, dnnl::memory>> constants(const PrimitiveDesc& pd, Constant& weight) {
    std::vector<std::pair<int, dnnl::memory>> list{
        {DNNL_ARG_WEIGHTS, weight.in(pd.weights_desc(), onednn_.stream)}};
    if (has_bias_) {
      list.emplace_back(DNNL_ARG_BIAS, bias_.in(pd.bias_desc(), onednn_.stream));
    }
    return list;
  }

  Onednn& onednn_;
  Dims dims_;  // of the weight
  Constant weight_, bias_;
  bool has_bias_;
};

class OnednnConvolution final : public OnednnLayer {
 public:
  OnednnConvolution(Onednn& onednn, const builtin::Image& size, std::vector<float> weight,
                    std::vector<float> bias)
      : OnednnLayer(onednn, {size.out_channels, size.channels, size.kernel_height, size.kernel_width}, weight,
                    bias),
        size_(size) {
    if (onednn.bf16_pairs) {
      weight_values_ = std::move(weight);
      bias_values_ = std::move(bias);
    }
  }

  Value lower(ProgramBuilder& builder, Step& /*step*/, const Value& x) override {
    return with_onednn_errors([&] {
      const Dims out{builder.batch(), size_.out_channels, size_.out_height, size_.out_width};
      const std::optional<Value> in_pairs = lower_in_pairs(builder, x, out);
      return in_pairs ? *in_pairs : lower_in_fp32(builder, x, out);
    });
  }

 private:
  using Convolution = dnnl::convolution_forward::primitive_desc;

  Convolution describe(const Desc& x, const Desc& weight, const Desc& y, bool may_fail) const {
    const Dims strides{size_.stride, size_.stride};
    const Dims padding{size_.padding, size_.padding};
    return {onednn_.engine,
            dnnl::prop_kind::forward_inference,
            dnnl::algorithm::convolution_direct,
            x,
            weight,
            bias_layout(),
            y,
            strides,
            padding,
            padding,
            own_scratchpad(),
            may_fail};
  }

  Value add_convolution(ProgramBuilder& builder, const Convolution& pd, Constant& weight, std::size_t x) {
    const Value y = value_in(builder, pd.dst_desc());
    add_primitive(builder, onednn_.engine, dnnl::convolution_forward(pd),
                  {{DNNL_ARG_SRC, pd.src_desc(), x}, {DNNL_ARG_DST, pd.dst_desc(), y.buffer}},
                  constants(pd, weight), pd.scratchpad_desc());
    return y;
  }

  Value lower_in_fp32(ProgramBuilder& builder, const Value& x, const Dims& out) {
    const Convolution pd = describe(any_layout(x.shape), any_layout(dims_), any_layout(out), false);
    Value y = add_convolution(builder, pd, weight_, buffer_in(builder, onednn_, x, pd.src_desc()));
    if (y.inner != 0) {
      return y;
    }
    const Value rows = builder.new_value(out);
    add_reorder(builder, onednn_.engine, {DNNL_ARG_FROM, pd.dst_desc(), y.buffer},
                {DNNL_ARG_TO, row_major(out), rows.buffer});
    return rows;
  }

  /// Nothing where it does not run in bf16 pairs.
  std::optional<Value> lower_in_pairs(ProgramBuilder& builder, const Value& x, const Dims& out) {
    // oneDNN 3.2's AMX kernel is wrong for some windows that do not overlap: 16 channels, 2x2, stride 2.
    const bool apart = size_.stride > 1 && size_.stride >= std::min(size_.kernel_height, size_.kernel_width);
    if (!onednn_.bf16_pairs || apart || size_.channels < kMinChannels || !fits_bf16(weight_values_)) {
      return std::nullopt;
    }
    const Dims& in = x.shape;
    const Desc factors({in[0], in[1] * kBf16Products, in[2], in[3]}, kBf16, Tag::nhwc);
    Dims weight_dims = dims_;
    weight_dims[1] *= kBf16Products;
    const Desc pixels(out, dnnl::memory::data_type::f32, Tag::nhwc);
    const Convolution pd = describe(factors, any_layout(weight_dims, kBf16), pixels, true);
    if (!factors_) {
      if (!pd || std::string_view(pd.impl_info_str()).find("amx") == std::string_view::npos) {
        return std::nullopt;
      }
      factors_ = Constant::factors_of(onednn_.engine, dims_, weight_values_);
      weight_ = {};
      onednn_.pairs_used = true;
    }
    const Value source = builder.in_order(x, in[1]);
    const std::size_t split = builder.new_buffer(factors.get_size());
    builder.add(
        {source.buffer, split}, [&parallel = builder.parallel(), count = in[0] * in[2] * in[3],
                                 channels = in[1], from = source.buffer, split](const Addresses& memory) {
          split_pixels(parallel, memory.at<float>(from), count, channels, memory.at<std::uint16_t>(split));
        });
    Value y = add_convolution(builder, pd, *factors_, split);
    builtin::Image size = size_;
    size.batch = builder.batch();
    builder.add({source.buffer, y.buffer}, [this, &parallel = builder.parallel(), size, from = source.buffer,
                                            to = y.buffer](const Addresses& memory) {
      repair_outputs(parallel, size, memory.at<float>(from), weight_values_.data(),
                     has_bias_ ? bias_values_.data() : nullptr, memory.at<float>(to));
    });
    return y;
  }

  builtin::Image size_;
  // Where bf16 pairs are allowed. The file's values are kept for the outputs that pairs cannot give;
  // `factors_` is there once the layer runs in pairs, and then takes the place of `weight_`.
  std::vector<float> weight_values_, bias_values_;
  std::optional<Constant> factors_;
};

class OnednnLinear final : public OnednnLayer {
 public:
  OnednnLinear(Onednn& onednn, std::int64_t in, std::int64_t out, std::span<const float> weight,
               std::span<const float> bias)
      : OnednnLayer(onednn, {out, in}, weight, bias) {}

  Value lower(ProgramBuilder& builder, Step& step, const Value& x) override {
    return with_onednn_errors([&] {
      const std::int64_t rows = x.size() / dims_[1];
      const Desc from = row_major({rows, dims_[1]});
      const Desc to = row_major({rows, dims_[0]});
      const dnnl::inner_product_forward::primitive_desc pd(onednn_.engine, dnnl::prop_kind::forward_inference,
                                                           from, any_layout(dims_), bias_layout(), to,
                                                           own_scratchpad());
      const Value y = builder.new_value(builder.shape(step.node));
      add_primitive(builder, onednn_.engine, dnnl::inner_product_forward(pd),
                    {{DNNL_ARG_SRC, from, x.buffer}, {DNNL_ARG_DST, to, y.buffer}}, constants(pd, weight_),
                    pd.scratchpad_desc());
      return y;
    });
  }
};

class OnednnLibrary final : public DenseLibrary {
 public:
  explicit OnednnLibrary(bool bf16_pairs) : onednn_{bf16_pairs} {}

  std::string name() const override {
    const dnnl_version_t* const version = dnnl_version();
    return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch) + (onednn_.pairs_used ? " with bf16 pairs" : "");
  }
  bool beats_winograd(std::int64_t channels) const override {
    return onednn_.bf16_pairs && has_amx() && channels >= kMinChannels;
  }
  bool has_orders() const override { return true; }

  std::unique_ptr<DenseLayer> convolution(const builtin::Image& size, std::vector<float> weight,
                                          std::vector<float> bias) override {
    return with_onednn_errors([&]() -> std::unique_ptr<DenseLayer> {
      return std::make_unique<OnednnConvolution>(onednn_, size, std::move(weight), std::move(bias));
    });
  }
  std::unique_ptr<DenseLayer> linear(std::int64_t in, std::int64_t out, std::vector<float> weight,
                                     std::vector<float> bias) override {
    return with_onednn_errors([&]() -> std::unique_ptr<DenseLayer> {
      return std::make_unique<OnednnLinear>(onednn_, in, out, weight, bias);
    });
  }
  void reorder(ProgramBuilder& builder, const Value& from, const Value& to) override {
    with_onednn_errors([&] {
      add_reorder(builder, onednn_.engine, {DNNL_ARG_FROM, layout_of(from), from.buffer},
                  {DNNL_ARG_TO, layout_of(to), to.buffer});
    });
  }

 private:
  Onednn onednn_;
};

}  // namespace

std::unique_ptr<DenseLibrary> make_onednn_library(bool bf16_pairs) {
  return with_onednn_errors(
      [&]() -> std::unique_ptr<DenseLibrary> { return std::make_unique<OnednnLibrary>(bf16_pairs); });
}

}  // namespace trit::runtime

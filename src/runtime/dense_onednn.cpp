// SPDX-License-Identifier: MIT
//
// Float layers by oneDNN. Each primitive chooses its memory layouts (format_tag::any), and reorders are added
// only where a producer and a consumer disagree: from one convolution through its ReLU (a post-op) and the
// pool to the next convolution the activations stay in the library's blocked layout, and flatten or the
// segment's end brings them back to rows. Weights are reordered once per layout, not per call.
//
// Where the CPU has AMX, a convolution of at least kLeastChannels channels multiplies its floats there as
// pairs of bf16 numbers (bf16_pairs.h): three times the products at 16 times the rate, with 16 bits of each
// number. The network's second convolution takes 13 us an image so, and 50 in fp32 (oneDNN 3.2, one core).
#include <algorithm>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>

#include "runtime/bf16_pairs.h"
#include "runtime/dense.h"
#include "runtime/onednn_program.h"
#include "trit/error.h"

namespace trit::runtime {
namespace {

using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;
constexpr auto kFloat = dnnl::memory::data_type::f32;
constexpr auto kBf16 = dnnl::memory::data_type::bf16;
/// Fewer input channels leave most of a tile row (32 bf16) empty, and fp32 is as fast: 3 channels take 10 to
/// 14 us an image of 32x32 in either.
constexpr std::int64_t kLeastChannels = 16;

/// Row-major, for any rank.
Desc plain(const Dims& dims, dnnl::memory::data_type type = kFloat) {
  Dims strides(dims.size());
  dnnl::memory::dim stride = 1;
  for (std::size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  return Desc(dims, type, strides);
}
Desc any(const Dims& dims, dnnl::memory::data_type type = kFloat) { return Desc(dims, type, Tag::any); }

/// A tensor that never changes, in each layout that a primitive has asked for.
class Constant {
 public:
  Constant() = default;
  Constant(const dnnl::engine& engine, const Dims& dims, std::span<const float> values) {
    layouts_.emplace_back(plain(dims), engine);
    std::copy(values.begin(), values.end(), data<float>());
  }

  /// The weight of a convolution, [out, in, height, width], as factors of the three products of bf16 pairs:
  /// [out, 3 * in, height, width].
  static Constant factors_of(const dnnl::engine& engine, Dims dims, const Constant& weight) {
    const auto out = static_cast<std::size_t>(dims[0]);
    const auto row = static_cast<std::size_t>(dims[1] * dims[2] * dims[3]);
    const float* const values = weight.data<float>();
    dims[1] *= kBf16Products;
    Constant split;
    split.layouts_.emplace_back(plain(dims, kBf16), engine);
    auto* const y = split.data<std::uint16_t>();
    for (std::size_t n = 0; n < out; ++n) {
      for (std::size_t i = 0; i < row; ++i) {
        const auto factors = weight_factors(bf16_pair(values[n * row + i]));
        for (std::size_t p = 0; p < factors.size(); ++p) {
          y[(n * factors.size() + p) * row + i] = factors[p];
        }
      }
    }
    return split;
  }

  const dnnl::memory& in(const Desc& layout, dnnl::stream& stream) {
    const auto at = std::find_if(layouts_.begin(), layouts_.end(),
                                 [&](const dnnl::memory& memory) { return memory.get_desc() == layout; });
    if (at != layouts_.end()) {
      first_used_ = first_used_ || at == layouts_.begin();
      return *at;
    }
    dnnl::memory memory(layout, stream.get_engine());
    dnnl::reorder(layouts_.front(), memory).execute(stream, layouts_.front(), memory);
    stream.wait();
    if (!first_used_) {  // the file's layout was only the source
      layouts_.front() = std::move(memory);
      first_used_ = true;
      return layouts_.front();
    }
    return layouts_.emplace_back(std::move(memory));
  }

 private:
  template <typename T>
  T* data() const {
    return static_cast<T*>(layouts_.front().get_data_handle());
  }

  std::vector<dnnl::memory> layouts_;
  bool first_used_ = false;  // a primitive holds layouts_[0]
};

struct Layer {
  Dims dims;  // of the weight
  Constant weight, bias;
  bool has_bias = false;
  bool in_pairs = false;  // `weight` holds factors of bf16 pairs
};

/// Translates one segment for one batch size.
class Compiler {
 public:
  Compiler(const Network& network, Parallel& parallel, std::map<std::size_t, Layer>& layers,
           dnnl::stream& stream, bool bf16_pairs, std::int64_t batch)
      : network_(network),
        parallel_(parallel),
        layers_(layers),
        pairs_allowed_(bf16_pairs),
        stream_(stream),
        engine_(stream.get_engine()),
        batch_(batch),
        program_(std::make_unique<OnednnProgram>(engine_)) {
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // else threads would share one scratchpad
    relu_attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops relu;
    relu.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
    relu_attributes_.set_post_ops(relu);
  }

  std::unique_ptr<CompiledSegment> compile(const DenseSegment& segment) {
    for (std::size_t i = 0; i < segment.inputs.size(); ++i) {
      const Desc layout = plain(dims_of(segment.inputs[i]));
      const std::size_t storage = program_->add_storage(Storage::Kind::input, i, layout.get_size());
      slot_of_[segment.inputs[i]] = program_->add_slot(layout, storage);
    }
    for (const DenseStep& step : segment.steps) {
      slot_of_[step.output] = compile_step(step);
    }
    for (std::size_t i = 0; i < segment.outputs.size(); ++i) {
      bring_out(slot_of_.at(segment.outputs[i]), dims_of(segment.outputs[i]), i);
    }
    program_->finish();
    return std::move(program_);
  }

 private:
  Dims dims_of(std::size_t value) const {
    Dims dims{batch_};
    dims.insert(dims.end(), network_.shapes[value].begin(), network_.shapes[value].end());
    return dims;
  }

  std::size_t compile_step(const DenseStep& step) {
    const Node& node = network_.graph.nodes[step.node];
    const std::size_t x = slot_of_.at(step.inputs[0]);
    switch (node.op) {
      case Op::conv2d:
        return conv2d(step, node, x);
      case Op::linear:
        return linear(step, x);
      case Op::max_pool2d:
      case Op::avg_pool2d:
        return pool(step, node, x);
      case Op::relu: {
        const Desc layout = program_->slot(x).layout;
        const dnnl::eltwise_forward::primitive_desc pd(engine_, dnnl::prop_kind::forward_inference,
                                                       dnnl::algorithm::eltwise_relu, layout, layout, 0.0F,
                                                       0.0F, attributes_);
        const std::size_t y = temporary(layout);
        program_->add_primitive(dnnl::eltwise_forward(pd), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}}, {},
                                pd.scratchpad_desc());
        return y;
      }
      case Op::add: {
        const Desc layout = program_->slot(x).layout;
        const std::size_t second = in_layout(slot_of_.at(step.inputs[1]), layout);
        const dnnl::binary::primitive_desc pd(engine_, dnnl::algorithm::binary_add, layout, layout, layout,
                                              attributes_);
        const std::size_t y = temporary(layout);
        program_->add_primitive(dnnl::binary(pd),
                                {{DNNL_ARG_SRC_0, x}, {DNNL_ARG_SRC_1, second}, {DNNL_ARG_DST, y}}, {},
                                pd.scratchpad_desc());
        return y;
      }
      default:  // flatten
        return reshaped(in_layout(x, plain(program_->slot(x).layout.get_dims())), dims_of(step.output));
    }
  }

  using Convolution = dnnl::convolution_forward::primitive_desc;

  Convolution convolution(const DenseStep& step, const Node& node, const Desc& x, const Desc& weight,
                          bool may_fail) {
    const Layer& layer = layers_.at(step.node);
    const Dims strides{node.stride, node.stride};
    const Dims padding{node.padding, node.padding};
    return {engine_,
            dnnl::prop_kind::forward_inference,
            dnnl::algorithm::convolution_direct,
            x,
            weight,
            layer.has_bias ? any({layer.dims[0]}) : Desc(),
            any(dims_of(step.output)),
            strides,
            padding,
            padding,
            step.relu ? relu_attributes_ : attributes_,
            may_fail};
  }

  std::size_t conv2d(const DenseStep& step, const Node& node, std::size_t x) {
    Layer& layer = layers_.at(step.node);
    const Dims dims = program_->slot(x).layout.get_dims();
    if (pairs_allowed_ && dims[1] >= kLeastChannels) {
      const Desc factors({dims[0], dims[1] * kBf16Products, dims[2], dims[3]}, kBf16, Tag::nhwc);
      Dims weight_dims = layer.dims;
      weight_dims[1] *= kBf16Products;
      const Convolution pd = convolution(step, node, factors, any(weight_dims, kBf16), true);
      if (layer.in_pairs ||
          (pd && std::string_view(pd.impl_info_str()).find("amx") != std::string_view::npos)) {
        if (!layer.in_pairs) {
          layer.weight = Constant::factors_of(engine_, layer.dims, layer.weight);
          layer.in_pairs = true;
        }
        return add_convolution(pd, layer, in_pairs(x, factors));
      }
    }
    const Convolution pd = convolution(step, node, any(dims), any(layer.dims), false);
    return add_convolution(pd, layer, in_layout(x, pd.src_desc()));
  }

  std::size_t add_convolution(const Convolution& pd, Layer& layer, std::size_t x) {
    const std::size_t y = temporary(pd.dst_desc());
    program_->add_primitive(dnnl::convolution_forward(pd), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}},
                            constants(layer, pd.weights_desc(), pd.bias_desc()), pd.scratchpad_desc());
    return y;
  }

  /// The value as factors of bf16 pairs, channels last.
  std::size_t in_pairs(std::size_t x, const Desc& layout) {
    const Dims dims = program_->slot(x).layout.get_dims();
    const std::size_t source = in_layout(x, Desc(dims, kFloat, Tag::nhwc));
    const std::size_t y = temporary(layout);
    program_->add_own_step(
        [&parallel = parallel_, pixels = dims[0] * dims[2] * dims[3], channels = dims[1]](const void* from,
                                                                                          void* to) {
          split_pixels(parallel, static_cast<const float*>(from), pixels, channels,
                       static_cast<std::uint16_t*>(to));
        },
        source, y);
    return y;
  }

  std::size_t linear(const DenseStep& step, std::size_t x) {
    Layer& layer = layers_.at(step.node);
    const Dims in = program_->slot(x).layout.get_dims();
    const std::int64_t rows = batch_ * numel(network_.shapes[step.output]) / layer.dims[0];
    const Desc from = plain({rows, layer.dims[1]});
    const Desc to = plain({rows, layer.dims[0]});
    const dnnl::inner_product_forward::primitive_desc pd(
        engine_, dnnl::prop_kind::forward_inference, from, any(layer.dims),
        layer.has_bias ? any({layer.dims[0]}) : Desc(), to, step.relu ? relu_attributes_ : attributes_);
    const std::size_t source = reshaped(in_layout(x, plain(in)), {rows, layer.dims[1]});
    const std::size_t y = temporary(to);
    program_->add_primitive(dnnl::inner_product_forward(pd), {{DNNL_ARG_SRC, source}, {DNNL_ARG_DST, y}},
                            constants(layer, pd.weights_desc(), pd.bias_desc()), pd.scratchpad_desc());
    return reshaped(y, dims_of(step.output));
  }

  std::size_t pool(const DenseStep& step, const Node& node, std::size_t x) {
    const auto algorithm = node.op == Op::max_pool2d ? dnnl::algorithm::pooling_max
                                                     : dnnl::algorithm::pooling_avg_exclude_padding;
    const Dims none{0, 0};
    const dnnl::pooling_forward::primitive_desc pd(engine_, dnnl::prop_kind::forward_inference, algorithm,
                                                   program_->slot(x).layout, any(dims_of(step.output)),
                                                   {node.stride, node.stride}, {node.kernel, node.kernel},
                                                   none, none, none, attributes_);
    const std::size_t y = temporary(pd.dst_desc());
    program_->add_primitive(dnnl::pooling_forward(pd), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}}, {},
                            pd.scratchpad_desc());
    return y;
  }

  std::vector<std::pair<int, dnnl::memory>> constants(Layer& layer, const Desc& weight, const Desc& bias) {
    std::vector<std::pair<int, dnnl::memory>> list{{DNNL_ARG_WEIGHTS, layer.weight.in(weight, stream_)}};
    if (layer.has_bias) {
      list.emplace_back(DNNL_ARG_BIAS, layer.bias.in(bias, stream_));
    }
    return list;
  }

  std::size_t temporary(const Desc& layout) {
    return program_->add_slot(layout, program_->add_storage(Storage::Kind::temporary, 0, layout.get_size()));
  }

  /// The value in `layout`: itself, or reordered.
  std::size_t in_layout(std::size_t slot, const Desc& layout) {
    if (program_->slot(slot).layout == layout) {
      return slot;
    }
    const std::size_t to = temporary(layout);
    add_reorder(slot, to);
    return to;
  }

  void add_reorder(std::size_t from, std::size_t to) {
    const dnnl::reorder::primitive_desc pd(engine_, program_->slot(from).layout, engine_,
                                           program_->slot(to).layout, attributes_);
    program_->add_primitive(dnnl::reorder(pd), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, {},
                            pd.scratchpad_desc());
  }

  /// The same row-major bytes under other dimensions.
  std::size_t reshaped(std::size_t slot, const Dims& dims) {
    const Slot& from = program_->slot(slot);
    return from.layout.get_dims() == dims ? slot : program_->add_slot(plain(dims), from.storage);
  }

  /// Makes output `index` of the segment: the value's own memory where it is row-major, else a reorder's
  /// target.
  void bring_out(std::size_t slot, const Dims& dims, std::size_t index) {
    const Slot from = program_->slot(slot);
    Storage& storage = program_->storage(from.storage);
    if (from.layout == plain(dims) && storage.kind == Storage::Kind::temporary) {
      storage.kind = Storage::Kind::output;
      storage.index = index;
      return;
    }
    const Desc layout = plain(dims);
    add_reorder(slot, program_->add_slot(
                          layout, program_->add_storage(Storage::Kind::output, index, layout.get_size())));
  }

  const Network& network_;
  Parallel& parallel_;
  std::map<std::size_t, Layer>& layers_;
  bool pairs_allowed_;
  dnnl::stream& stream_;
  dnnl::engine engine_;
  std::int64_t batch_;
  dnnl::primitive_attr attributes_, relu_attributes_;
  std::unique_ptr<OnednnProgram> program_;
  std::map<std::size_t, std::size_t> slot_of_;  // value -> its slot
};

class OnednnLibrary final : public DenseLibrary {
 public:
  OnednnLibrary(Network& network, Parallel& parallel, bool bf16_pairs)
      : network_(network),
        parallel_(parallel),
        bf16_pairs_(bf16_pairs),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_) {
    for (std::size_t i = 0; i < network.graph.nodes.size(); ++i) {
      const Op op = network.graph.nodes[i].op;
      if (op != Op::conv2d && op != Op::linear) {
        continue;
      }
      const Parameters own = std::move(network.parameters[i]);
      network.parameters[i] = {};
      Layer& layer = layers_[i];
      layer.dims = own.weight_shape;
      layer.weight = Constant(engine_, layer.dims, own.weight);
      layer.has_bias = !own.bias.empty();
      if (layer.has_bias) {
        layer.bias = Constant(engine_, {layer.dims[0]}, own.bias);
      }
    }
  }

  std::string name() const override {
    const dnnl_version_t* const version = dnnl_version();
    const bool pairs =
        std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer.second.in_pairs; });
    return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch) + (pairs ? " with bf16 pairs" : "");
  }

  std::unique_ptr<CompiledSegment> compile(const DenseSegment& segment, std::int64_t batch) override {
    return with_onednn_errors(
        [&] { return Compiler(network_, parallel_, layers_, stream_, bf16_pairs_, batch).compile(segment); });
  }

 private:
  const Network& network_;
  Parallel& parallel_;
  bool bf16_pairs_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<std::size_t, Layer> layers_;
};

}  // namespace

std::unique_ptr<DenseLibrary> make_onednn_library(Network& network, Parallel& parallel, bool bf16_pairs) {
  return with_onednn_errors([&]() -> std::unique_ptr<DenseLibrary> {
    return std::make_unique<OnednnLibrary>(network, parallel, bf16_pairs);
  });
}

}  // namespace trit::runtime

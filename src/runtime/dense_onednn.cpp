// SPDX-License-Identifier: MIT
//
// Float layers by oneDNN. Each primitive chooses its memory layouts (format_tag::any), and reorders are added
// only where a producer and a consumer disagree: from one convolution through its ReLU and pool (a pass of
// this library's own in the same layout, relu_pool.h) to the next convolution the activations stay in
// oneDNN's blocked layout, and flatten or the segment's end brings them back to rows. Weights are reordered
// once per layout, not per call.
//
// 3x3 convolutions run by Winograd's algorithm (winograd/layer.h) where it is faster; the values between two
// of them are channels-last.
//
// Where the user allows it and the CPU has AMX, a convolution of at least kLeastChannels channels multiplies
// its floats there as pairs of bf16 numbers (bf16_pairs.h): three times the products at 16 times the rate,
// with 16 bits of each number. SimpleBitNetCNN's second convolution takes 13 us an image so, and 50 in fp32
// (oneDNN 3.2, one core).
#include <algorithm>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>

#include "cpu/cpu_features.h"
#include "runtime/bf16_pairs.h"
#include "runtime/bf16_repair.h"
#include "runtime/dense.h"
#include "runtime/dense_groups.h"
#include "runtime/onednn_program.h"
#include "runtime/onednn_weights.h"
#include "runtime/relu_pool.h"
#include "runtime/winograd/layer.h"
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

/// The value's floats as [outer, height, width, inner].
struct ImageLayout {
  Tag tag;
  std::int64_t inner;
};

/// Nothing for a layout that relu_pool.h does not take.
std::optional<ImageLayout> image_layout(const Desc& layout) {
  const Dims dims = layout.get_dims();
  for (const ImageLayout& known : {ImageLayout{Tag::nChw16c, 16}, ImageLayout{Tag::nChw8c, 8},
                                   ImageLayout{Tag::nhwc, dims[1]}, ImageLayout{Tag::nchw, 1}}) {
    if (layout == Desc(dims, kFloat, known.tag)) {
      return known;
    }
  }
  return std::nullopt;
}

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
  }

  std::unique_ptr<CompiledSegment> compile(const DenseSegment& segment) {
    for (std::size_t i = 0; i < segment.inputs.size(); ++i) {
      const Desc layout = row_major(dims_of(segment.inputs[i]));
      const std::size_t storage = program_->add_storage(Storage::Kind::input, i, layout.get_size());
      slot_of_[segment.inputs[i]] = program_->add_slot(layout, storage);
    }
    groups_ = group_steps(network_, segment);
    for (const DenseGroup& group : groups_) {
      slot_of_[group.output()] = compile_group(group);
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

  std::size_t compile_group(const DenseGroup& group) {
    const DenseStep& step = group.step;
    const Node& node = network_.graph.nodes[step.node];
    const std::size_t x = slot_of_.at(step.inputs[0]);
    switch (node.op) {
      case Op::conv2d:
        return convolution(group, node, x);
      case Op::linear: {
        const std::size_t y = linear(step, x);
        return step.relu ? relu_of(y, y) : y;
      }
      case Op::max_pool2d:
      case Op::avg_pool2d:
        return pool(step.node, false, x);
      case Op::relu:
        return group.pool ? pool(*group.pool, true, x) : relu_of(x, temporary(program_->slot(x).layout));
      case Op::add:
        return sum(x, slot_of_.at(step.inputs[1]));
      default:  // flatten
        return reshaped(in_layout(x, row_major(program_->slot(x).layout.get_dims())), dims_of(step.output));
    }
  }

  /// A convolution, its ReLU and its pool: the place to choose how they run.
  std::size_t convolution(const DenseGroup& group, const Node& node, std::size_t x) {
    if (layers_.at(group.step.node).winograd) {
      return winograd(group, x);
    }
    const std::optional<std::size_t> in_pairs = convolution_in_pairs(group.step, node, x);
    const std::size_t y = in_pairs ? *in_pairs : convolution_in_fp32(group.step, node, x);
    if (group.pool) {
      return pool(*group.pool, group.step.relu, y);
    }
    return group.step.relu ? relu_of(y, y) : y;
  }

  /// By Winograd's algorithm, channels last unless row-major values are wanted next. A 2x2 max pool is part
  /// of it.
  std::size_t winograd(const DenseGroup& group, std::size_t x) {
    ConvolutionShape shape = winograd_shape(network_, group.step.node);
    shape.relu = group.step.relu;
    if (group.pool) {
      const Node& pool_node = network_.graph.nodes[*group.pool];
      shape.pool = pool_node.op == Op::max_pool2d && pool_node.kernel == 2 && pool_node.stride == 2;
    }
    const Dims in = program_->slot(x).layout.get_dims();
    const bool x_in_planes = program_->slot(x).layout == row_major(in);
    const std::size_t source = x_in_planes ? x : in_layout(x, Desc(in, kFloat, Tag::nhwc));
    const Dims out = dims_of(shape.pool ? group.output() : group.step.node);
    const bool y_in_planes = read_in_planes(group.output());
    const std::size_t y = temporary(y_in_planes ? row_major(out) : Desc(out, kFloat, Tag::nhwc));
    const auto order = [](bool planes) { return planes ? ImageOrder::planes : ImageOrder::pixels; };
    program_->add_own_step(
        [&parallel = parallel_, &convolution = *layers_.at(group.step.node).winograd, shape, batch = batch_,
         x_order = order(x_in_planes), y_order = order(y_in_planes)](const void* from, void* to) {
          convolution.run(parallel, shape, batch, static_cast<const float*>(from), x_order,
                          static_cast<float*>(to), y_order);
        },
        source, y);
    return group.pool && !shape.pool ? pool(*group.pool, false, y) : y;
  }

  /// Whether nobody takes the value channels-last: it leaves the segment, or is flattened.
  bool read_in_planes(std::size_t value) const {
    return std::none_of(groups_.begin(), groups_.end(), [&](const DenseGroup& group) {
      const auto& inputs = group.step.inputs;
      const Op op = network_.graph.nodes[group.step.node].op;
      return op != Op::flatten && op != Op::linear &&
             std::find(inputs.begin(), inputs.end(), value) != inputs.end();
    });
  }

  using Convolution = dnnl::convolution_forward::primitive_desc;

  Convolution describe(const DenseStep& step, const Node& node, const Desc& x, const Desc& weight,
                       const Desc& y, bool may_fail) {
    const Layer& layer = layers_.at(step.node);
    const Dims strides{node.stride, node.stride};
    const Dims padding{node.padding, node.padding};
    return {engine_,
            dnnl::prop_kind::forward_inference,
            dnnl::algorithm::convolution_direct,
            x,
            weight,
            layer.has_bias ? any_layout({layer.dims[0]}) : Desc(),
            y,
            strides,
            padding,
            padding,
            attributes_,
            may_fail};
  }

  std::size_t convolution_in_fp32(const DenseStep& step, const Node& node, std::size_t x) {
    Layer& layer = layers_.at(step.node);
    const Convolution pd = describe(step, node, any_layout(program_->slot(x).layout.get_dims()),
                                    any_layout(layer.dims), any_layout(dims_of(step.node)), false);
    return add_convolution(pd, layer, layer.weight, in_layout(x, pd.src_desc()));
  }

  /// Nothing where it does not run in bf16 pairs.
  std::optional<std::size_t> convolution_in_pairs(const DenseStep& step, const Node& node, std::size_t x) {
    Layer& layer = layers_.at(step.node);
    const Dims in = program_->slot(x).layout.get_dims();
    const Dims out = dims_of(step.node);
    // oneDNN 3.2's AMX kernel is wrong for some windows that do not overlap: 16 channels, 2x2, stride 2.
    const bool apart = node.stride > 1 && node.stride >= std::min(layer.dims[2], layer.dims[3]);
    if (!pairs_allowed_ || apart || in[1] < kLeastChannels || !fits_bf16(layer.weight_values)) {
      return std::nullopt;
    }
    const Desc factors({in[0], in[1] * kBf16Products, in[2], in[3]}, kBf16, Tag::nhwc);
    Dims weight_dims = layer.dims;
    weight_dims[1] *= kBf16Products;
    const Convolution pd =
        describe(step, node, factors, any_layout(weight_dims, kBf16), Desc(out, kFloat, Tag::nhwc), true);
    if (!layer.factors) {
      if (!pd || std::string_view(pd.impl_info_str()).find("amx") == std::string_view::npos) {
        return std::nullopt;
      }
      layer.factors = Constant::factors_of(engine_, layer.dims, layer.weight_values);
      layer.weight = {};
    }
    const std::size_t source = in_layout(x, Desc(in, kFloat, Tag::nhwc));
    const std::size_t split = temporary(factors);
    program_->add_own_step(
        [&parallel = parallel_, pixels = in[0] * in[2] * in[3], channels = in[1]](const void* from,
                                                                                  void* to) {
          split_pixels(parallel, static_cast<const float*>(from), pixels, channels,
                       static_cast<std::uint16_t*>(to));
        },
        source, split);
    const std::size_t y = add_convolution(pd, layer, *layer.factors, split);
    const builtin::Image size{.batch = in[0],
                              .channels = in[1],
                              .height = in[2],
                              .width = in[3],
                              .out_channels = out[1],
                              .out_height = out[2],
                              .out_width = out[3],
                              .kernel_height = layer.dims[2],
                              .kernel_width = layer.dims[3],
                              .stride = node.stride,
                              .padding = node.padding};
    program_->add_own_step(
        [&parallel = parallel_, &layer, size](const void* from, void* to) {
          repair_outputs(parallel, size, static_cast<const float*>(from), layer.weight_values.data(),
                         layer.has_bias ? layer.bias_values.data() : nullptr, static_cast<float*>(to));
        },
        source, y);
    return y;
  }

  std::size_t add_convolution(const Convolution& pd, Layer& layer, Constant& weight, std::size_t x) {
    const std::size_t y = temporary(pd.dst_desc());
    program_->add_primitive(dnnl::convolution_forward(pd), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}},
                            constants(layer, weight, pd.weights_desc(), pd.bias_desc()),
                            pd.scratchpad_desc());
    return y;
  }

  std::size_t linear(const DenseStep& step, std::size_t x) {
    Layer& layer = layers_.at(step.node);
    const Dims in = program_->slot(x).layout.get_dims();
    const std::int64_t rows = batch_ * numel(network_.shapes[step.output]) / layer.dims[0];
    const Desc from = row_major({rows, layer.dims[1]});
    const Desc to = row_major({rows, layer.dims[0]});
    const dnnl::inner_product_forward::primitive_desc pd(
        engine_, dnnl::prop_kind::forward_inference, from, any_layout(layer.dims),
        layer.has_bias ? any_layout({layer.dims[0]}) : Desc(), to, attributes_);
    const std::size_t source = reshaped(in_layout(x, row_major(in)), {rows, layer.dims[1]});
    const std::size_t y = temporary(to);
    program_->add_primitive(dnnl::inner_product_forward(pd), {{DNNL_ARG_SRC, source}, {DNNL_ARG_DST, y}},
                            constants(layer, layer.weight, pd.weights_desc(), pd.bias_desc()),
                            pd.scratchpad_desc());
    return reshaped(y, dims_of(step.output));
  }

  std::size_t sum(std::size_t x, std::size_t second) {
    const Desc layout = program_->slot(x).layout;
    second = in_layout(second, layout);
    const dnnl::binary::primitive_desc pd(engine_, dnnl::algorithm::binary_add, layout, layout, layout,
                                          attributes_);
    const std::size_t y = temporary(layout);
    program_->add_primitive(dnnl::binary(pd),
                            {{DNNL_ARG_SRC_0, x}, {DNNL_ARG_SRC_1, second}, {DNNL_ARG_DST, y}}, {},
                            pd.scratchpad_desc());
    return y;
  }

  /// `y` has the layout of `x`, or is `x`. A blocked layout's unused lanes are zero and stay zero.
  std::size_t relu_of(std::size_t x, std::size_t y) {
    const auto count = static_cast<std::int64_t>(program_->slot(x).layout.get_size() / sizeof(float));
    program_->add_own_step(
        [&parallel = parallel_, count](const void* from, void* to) {
          relu(parallel, count, static_cast<const float*>(from), static_cast<float*>(to));
        },
        x, y);
    return y;
  }

  /// In the layout of `x`.
  std::size_t pool(std::size_t node_index, bool with_relu, std::size_t x) {
    const Node& node = network_.graph.nodes[node_index];
    const Dims in = program_->slot(x).layout.get_dims();
    const Dims out = dims_of(node_index);
    std::optional<ImageLayout> layout = image_layout(program_->slot(x).layout);
    if (!layout) {
      x = in_layout(x, row_major(in));
      layout = ImageLayout{Tag::nchw, 1};
    }
    const std::size_t y = temporary(Desc(out, kFloat, layout->tag));
    const Pooling size{.outer = in[0] * ((in[1] + layout->inner - 1) / layout->inner),
                       .height = in[2],
                       .width = in[3],
                       .inner = layout->inner,
                       .out_height = out[2],
                       .out_width = out[3],
                       .kernel = node.kernel,
                       .stride = node.stride,
                       .relu = with_relu};
    const auto pool2d = node.op == Op::max_pool2d ? max_pool2d : avg_pool2d;
    program_->add_own_step(
        [&parallel = parallel_, size, pool2d](const void* from, void* to) {
          pool2d(parallel, size, static_cast<const float*>(from), static_cast<float*>(to));
        },
        x, y);
    return y;
  }

  std::vector<std::pair<int, dnnl::memory>> constants(Layer& layer, Constant& weight,
                                                      const Desc& weight_layout, const Desc& bias) {
    std::vector<std::pair<int, dnnl::memory>> list{{DNNL_ARG_WEIGHTS, weight.in(weight_layout, stream_)}};
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
    return from.layout.get_dims() == dims ? slot : program_->add_slot(row_major(dims), from.storage);
  }

  /// Makes output `index` of the segment: the value's own memory where it is row-major, else a reorder's
  /// target.
  void bring_out(std::size_t slot, const Dims& dims, std::size_t index) {
    const Slot from = program_->slot(slot);
    Storage& storage = program_->storage(from.storage);
    if (from.layout == row_major(dims) && storage.kind == Storage::Kind::temporary) {
      storage.kind = Storage::Kind::output;
      storage.index = index;
      return;
    }
    const Desc layout = row_major(dims);
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
  dnnl::primitive_attr attributes_;
  std::unique_ptr<OnednnProgram> program_;
  std::vector<DenseGroup> groups_;
  std::map<std::size_t, std::size_t> slot_of_;  // value -> its slot
};

class OnednnLibrary final : public DenseLibrary {
 public:
  OnednnLibrary(Network& network, Parallel& parallel, Backend backend, bool bf16_pairs)
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
      Layer& layer = layers_[i];
      const Parameters& stored = network.parameters[i];
      // Where the user allows bf16 pairs and the CPU has them, they are faster.
      if (!bf16_pairs || !has_amx() || stored.weight_shape[1] < kLeastChannels) {
        layer.winograd = winograd_layer(network, i, backend);
      }
      Parameters own = std::move(network.parameters[i]);
      network.parameters[i] = {};
      layer.dims = own.weight_shape;
      if (layer.winograd) {
        continue;
      }
      layer.weight = Constant(engine_, layer.dims, own.weight);
      layer.has_bias = !own.bias.empty();
      if (layer.has_bias) {
        layer.bias = Constant(engine_, {layer.dims[0]}, own.bias);
      }
      if (bf16_pairs && op == Op::conv2d) {
        layer.weight_values = std::move(own.weight);
        layer.bias_values = std::move(own.bias);
      }
    }
  }

  std::string name() const override {
    const dnnl_version_t* const version = dnnl_version();
    const bool pairs = std::any_of(layers_.begin(), layers_.end(),
                                   [](const auto& layer) { return layer.second.factors.has_value(); });
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

std::unique_ptr<DenseLibrary> make_onednn_library(Network& network, Parallel& parallel, Backend backend,
                                                  bool bf16_pairs) {
  return with_onednn_errors([&]() -> std::unique_ptr<DenseLibrary> {
    return std::make_unique<OnednnLibrary>(network, parallel, backend, bf16_pairs);
  });
}

}  // namespace trit::runtime

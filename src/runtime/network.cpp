// SPDX-License-Identifier: MIT
#include "runtime/network.h"

#include <algorithm>
#include <string>

#include "io/dtype.h"
#include "runtime/tensors.h"
#include "trit/error.h"

namespace trit::runtime {
namespace {

void check_metadata(const io::SafetensorsFile& file, const char* key, const char* wanted) {
  const auto at = file.metadata().find(key);
  if (at == file.metadata().end() || at->second != wanted) {
    throw Error(file.path().string() + ": metadata \"" + key + "\" is " +
                (at == file.metadata().end() ? "missing" : "\"" + at->second.substr(0, 60) + "\"") +
                ", wanted \"" + wanted + "\"");
  }
}

/// `File` is a SafetensorsFile with FileTensors = Tensors, or a Checkpoint with TensorHeaders.
template <typename FileTensors>
class NetworkBuilder {
 public:
  template <typename File>
  explicit NetworkBuilder(const File& file) : file_(file.path().string()), tensors_(file) {
    const auto model = file.metadata().find("trit.model");
    if (model == file.metadata().end()) {
      throw Error(
          file_ +
          ": no metadata \"trit.model\": the file holds tensors, but not the graph of a model. It is JSON "
          "such "
          "as {\"input\": {\"shape\": [8]}, \"nodes\": [{\"op\": \"input\"}, {\"op\": \"linear\", \"name\": "
          "\"fc\", \"inputs\": [0]}]}; docs/quickstart.md shows how to write it");
    }
    network_.graph = parse_graph(model->second, file_);
  }

  Network build() {
    const std::size_t nodes = network_.graph.nodes.size();
    network_.parameters.resize(nodes);
    for (std::size_t i = 0; i < nodes; ++i) {
      what_ = file_ + ": " + describe(network_.graph, i);
      network_.shapes.push_back(result_shape(i));
      const auto elements = io::checked_numel(network_.shapes.back());
      if (!elements || *elements > kMaxActivation) {
        throw Error(what_ + ": a result of shape " + io::shape_text(network_.shapes.back()) +
                    ", wanted at most " + std::to_string(kMaxActivation) + " elements");
      }
    }
    tensors_.check_all_used();
    const std::size_t classes = network_.graph.input.classes.size();
    const std::int64_t outputs = numel(network_.shapes.back());
    if (classes != 0 && static_cast<std::int64_t>(classes) != outputs) {
      throw Error(file_ + ": metadata \"trit.model\": \"input\": " + std::to_string(classes) +
                  " \"classes\", wanted none or " + std::to_string(outputs) + ", one per output");
    }
    return std::move(network_);
  }

 private:
  Shape result_shape(std::size_t index) {
    const Node& node = network_.graph.nodes[index];
    if (node.op == Op::input) {
      return network_.graph.input.shape;
    }
    const Shape& x = network_.shapes[node.inputs[0]];
    switch (node.op) {
      case Op::conv2d:
        return conv2d(index, node, x);
      case Op::linear:
      case Op::bit_linear:
        return linear(index, node, x);
      case Op::max_pool2d:
      case Op::avg_pool2d:
        check_image(x);
        return {x[0], window_positions(x[1], node.kernel, node), window_positions(x[2], node.kernel, node)};
      case Op::add:
        if (x != network_.shapes[node.inputs[1]]) {
          throw Error(what_ + ": inputs of shapes " + io::shape_text(x) + " and " +
                      io::shape_text(network_.shapes[node.inputs[1]]) + ", wanted two of one shape");
        }
        return x;
      case Op::flatten:
        return {numel(x)};
      default:
        return x;
    }
  }

  Shape conv2d(std::size_t index, const Node& node, const Shape& x) {
    check_image(x);
    Parameters& parameters = network_.parameters[index];
    const std::string weight = node.name + ".weight";
    parameters.weight = tensors_.floats(weight, {-1, x[0], -1, -1}, what_);
    const std::span<const std::int64_t> shape = tensors_.at(weight, what_).shape;
    parameters.weight_shape.assign(shape.begin(), shape.end());
    const std::int64_t out = parameters.weight_shape[0];
    parameters.bias = tensors_.optional_floats(node.name + ".bias", {out}, what_);
    add_layer(node, parameters);
    return {out, window_positions(x[1], parameters.weight_shape[2], node),
            window_positions(x[2], parameters.weight_shape[3], node)};
  }

  /// linear and bit_linear take the last dimension; those before it are rows.
  Shape linear(std::size_t index, const Node& node, const Shape& x) {
    Parameters& parameters = network_.parameters[index];
    const std::string weight = node.name + ".weight";
    const std::int64_t in = x.back();
    if (node.op == Op::bit_linear) {
      parameters.codes = tensors_.codes(weight, in, what_);
    } else {
      parameters.weight = tensors_.floats(weight, {-1, in}, what_);
    }
    const std::int64_t out = tensors_.at(weight, what_).shape[0];
    parameters.weight_shape = {out, in};
    parameters.bias = tensors_.optional_floats(node.name + ".bias", {out}, what_);
    if (node.op == Op::bit_linear) {
      parameters.scale = tensors_.scales(node.name + ".weight_scale", out, what_);
      if (node.norm == Norm::rms) {
        parameters.norm_weight = tensors_.optional_floats(node.name + ".norm.weight", {in}, what_);
      }
    }
    add_layer(node, parameters);
    Shape shape = x;
    shape.back() = out;
    return shape;
  }

  void check_image(const Shape& x) const {
    if (x.size() != 3) {
      throw Error(what_ + ": an input of shape " + io::shape_text(x) + ", wanted [channels, height, width]");
    }
  }

  std::int64_t window_positions(std::int64_t length, std::int64_t window, const Node& node) const {
    const std::int64_t room = length + 2 * node.padding - window;
    if (room < 0) {
      throw Error(what_ + ": a window of " + std::to_string(window) + " over " + std::to_string(length) +
                  " inputs padded by " + std::to_string(node.padding) + ", wanted a window that fits");
    }
    return room / node.stride + 1;
  }

  void add_layer(const Node& node, const Parameters& parameters) {
    LayerInfo layer;
    layer.name = node.name;
    layer.op = std::string(name_of(node.op));
    layer.shape = parameters.weight_shape;
    for (const char* suffix : {".weight", ".weight_scale", ".bias", ".norm.weight"}) {
      layer.stored_bytes += tensors_.stored_bytes(node.name + suffix);
    }
    layer.float_bytes = sizeof(float) * (static_cast<std::size_t>(numel(parameters.weight_shape)) +
                                         parameters.bias.size() + parameters.norm_weight.size());
    layer.scale = parameters.scale;
    network_.layers.push_back(std::move(layer));
  }

  std::string file_;
  std::string what_;  // the file and the node, for messages
  FileTensors tensors_;
  Network network_;
};

}  // namespace

std::int64_t numel(const Shape& shape) { return io::checked_numel(shape).value_or(0); }

std::int64_t largest_layer(const Network& network) {
  std::int64_t largest = 1;
  for (std::size_t i = 0; i < network.shapes.size(); ++i) {
    std::int64_t elements = numel(network.shapes[i]);
    for (const std::size_t input : network.graph.nodes[i].inputs) {
      elements += numel(network.shapes[input]);
    }
    largest = std::max(largest, elements);
  }
  return largest;
}

Network load_network(const io::SafetensorsFile& file) {
  NetworkBuilder<Tensors> builder(file);  // first: a file without a graph is told how to get one
  check_metadata(file, "trit.version", "1");
  check_metadata(file, "trit.layout", "rows-2bit");
  check_metadata(file, "trit.scale", "multiply");
  return builder.build();
}

}  // namespace trit::runtime

namespace trit {

void check_model(const io::Checkpoint& checkpoint) {
  runtime::NetworkBuilder<runtime::TensorHeaders>(checkpoint).build();
}

void check_graph(std::string_view graph, const std::string& what) { runtime::parse_graph(graph, what); }

}  // namespace trit

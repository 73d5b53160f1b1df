// SPDX-License-Identifier: MIT
#include "runtime/network.h"

#include <algorithm>
#include <string>

#include "io/dtype.h"
#include "runtime/rotated_inputs.h"
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

Graph graph_of(const std::map<std::string, std::string, std::less<>>& metadata, const std::string& file) {
  const auto model = metadata.find("trit.model");
  if (model == metadata.end()) {
    throw Error(
        file +
        ": no metadata \"trit.model\": the file holds tensors, but not the graph of a model. It is JSON "
        "such as {\"input\": {\"shape\": [8]}, \"nodes\": [{\"op\": \"input\"}, {\"op\": \"linear\", "
        "\"name\": \"fc\", \"inputs\": [0]}]}; docs/quickstart.md shows how to write it");
  }
  return parse_graph(model->second, file);
}

Network build_network(Graph graph, TensorSource& tensors, const io::Metadata& metadata,
                      const std::string& file) {
  Network network{std::move(graph), {}, {}};
  ModelRotation rotation(metadata, file);
  for (std::size_t i = 0; i < network.graph.nodes.size(); ++i) {
    const Node& node = network.graph.nodes[i];
    const std::string what = file + ": " + describe(network.graph, i);
    Shape shape = network.graph.input.shape;
    if (node.op) {
      std::vector<const Shape*> inputs;
      for (const std::size_t input : node.inputs) {
        inputs.push_back(&network.shapes[input]);
      }
      NodeFile own(tensors, rotation, node.name, what, std::move(inputs));
      shape = node.op->load(own);
      if (node.op->index_limit() != 0 && node.inputs[0] != 0) {
        throw Error(what + ": reads node " + std::to_string(node.inputs[0]) +
                    ", wanted node 0, the input: its values are the indexes");
      }
      if (!own.layer().shape.empty()) {
        network.layers.push_back(own.layer());
        network.layers.back().name = node.name;
        network.layers.back().op = std::string(node.type);
      }
    }
    const auto elements = io::checked_numel(shape);
    if (!elements || *elements > kMaxActivation) {
      throw Error(what + ": a result of shape " + io::shape_text(shape) + ", wanted at most " +
                  std::to_string(kMaxActivation) + " elements");
    }
    network.shapes.push_back(std::move(shape));
  }
  tensors.check_all_used();
  rotation.check_all_taken();
  const std::size_t classes = network.graph.input.classes.size();
  const std::int64_t outputs = numel(network.shapes.back());
  if (classes != 0 && static_cast<std::int64_t>(classes) != outputs) {
    throw Error(file + ": metadata \"trit.model\": \"input\": " + std::to_string(classes) +
                " \"classes\", wanted none or " + std::to_string(outputs) + ", one per output");
  }
  return network;
}

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
  const std::string name = file.path().string();
  Graph graph = graph_of(file.metadata(), name);  // first: a file without a graph is told how to get one
  check_metadata(file, "trit.version", "1");
  check_metadata(file, "trit.layout", "rows-2bit");
  check_metadata(file, "trit.scale", "multiply");
  Tensors tensors(file);
  return build_network(std::move(graph), tensors, file.metadata(), name);
}

const Shape& NodeFile::image() const {
  if (input().size() != 3) {
    refuse("an input of shape " + io::shape_text(input()) + ", wanted [channels, height, width]");
  }
  return input();
}

std::int64_t NodeFile::positions(std::int64_t length, std::int64_t window, std::int64_t stride,
                                 std::int64_t padding) const {
  const std::int64_t room = length + 2 * padding - window;
  if (room < 0) {
    refuse("a window of " + std::to_string(window) + " over " + std::to_string(length) +
           " inputs padded by " + std::to_string(padding) + ", wanted a window that fits");
  }
  return room / stride + 1;
}

void NodeFile::refuse(const std::string& problem) const { throw Error(what_ + ": " + problem); }

std::string NodeFile::take(const char* tensor) {
  std::string name = name_ + "." + tensor;
  layer_.stored_bytes += tensors_.stored_bytes(name);
  return name;
}

std::vector<float> NodeFile::floats(const char* tensor, const Shape& wanted) {
  std::vector<float> values = tensors_.floats(take(tensor), wanted, what_);
  layer_.float_bytes += sizeof(float) * values.size();
  return values;
}

std::vector<float> NodeFile::optional_floats(const char* tensor, const Shape& wanted) {
  return tensors_.contains(name_ + "." + tensor) ? floats(tensor, wanted) : std::vector<float>{};
}

std::span<const std::uint8_t> NodeFile::codes(const char* tensor, std::int64_t in) {
  const auto codes = tensors_.codes(take(tensor), in, what_);
  layer_.float_bytes += sizeof(float) * static_cast<std::size_t>(shape(tensor)[0] * in);
  return codes;
}

std::vector<float> NodeFile::scales(const char* tensor, std::int64_t rows, std::int64_t in,
                                    std::int64_t& group) {
  return layer_.scale = tensors_.scales(take(tensor), rows, in, group, what_);
}

Shape NodeFile::shape(const char* tensor) { return tensors_.shape(name_ + "." + tensor, what_); }

RotatedInputs NodeFile::rotation(Rotated list, const char* tensor, std::int64_t width) {
  return rotation_.take(list, name_ + "." + tensor, width, what_);
}

void NodeFile::ignore(const char* tensor) {
  if (tensors_.contains(name_ + "." + tensor)) {
    tensors_.shape(take(tensor), what_);
  }
}

}  // namespace trit::runtime

namespace trit {

void check_model(const io::Checkpoint& checkpoint) {
  const std::string name = checkpoint.path().string();
  runtime::TensorHeaders tensors(checkpoint);
  runtime::build_network(runtime::graph_of(checkpoint.metadata(), name), tensors, checkpoint.metadata(),
                         name);
}

void check_graph(std::string_view graph, const std::string& what) { runtime::parse_graph(graph, what); }

}  // namespace trit

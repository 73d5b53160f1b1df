// SPDX-License-Identifier: MIT
#include "runtime/graph.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "runtime/strict_json.h"
#include "trit/error.h"

namespace trit::runtime {
namespace {

constexpr std::int64_t kMaxDimension = std::int64_t{1} << 28;  // as the elements of an activation (network.h)
constexpr std::int64_t kMaxWindow = 4096;                      // kernel, stride and padding
constexpr std::size_t kMaxNodes = 4096;
constexpr std::size_t kMaxRank = 6;

constexpr std::array<std::pair<Op, std::string_view>, 9> kOps{{{Op::input, "input"},
                                                               {Op::conv2d, "conv2d"},
                                                               {Op::linear, "linear"},
                                                               {Op::bit_linear, "bit_linear"},
                                                               {Op::relu, "relu"},
                                                               {Op::max_pool2d, "max_pool2d"},
                                                               {Op::avg_pool2d, "avg_pool2d"},
                                                               {Op::add, "add"},
                                                               {Op::flatten, "flatten"}}};

Op op_from_name(const std::string& name, const std::string& what) {
  const auto* row = std::find_if(kOps.begin(), kOps.end(), [&](const auto& r) { return r.second == name; });
  if (row == kOps.end()) {
    std::string names;
    for (const auto& [op, known] : kOps) {
      names += (names.empty() ? "" : ", ") + std::string(known);
    }
    throw Error(what + ": unknown op \"" + name.substr(0, 60) + "\", wanted one of " + names);
  }
  return row->first;
}

std::vector<float> floats(const Json& object, const char* key, const std::string& what) {
  std::vector<float> values;
  if (object.contains(key)) {
    for (const Json& value : array_member(object, key, what)) {
      values.push_back(float_value(value, what + ": \"" + key + "\"[" + std::to_string(values.size()) + "]"));
    }
  }
  return values;
}

ModelInput parse_input(const Json& object, const std::string& what) {
  check_keys(object, {"shape", "mean", "std", "classes"}, what);
  ModelInput input;
  for (const Json& value : array_member(object, "shape", what)) {
    input.shape.push_back(integer_value(value, 1, kMaxDimension,
                                        what + ": \"shape\"[" + std::to_string(input.shape.size()) + "]"));
  }
  if (input.shape.empty() || input.shape.size() > kMaxRank) {
    throw Error(what + ": \"shape\" has " + std::to_string(input.shape.size()) + " dimensions, wanted 1 to " +
                std::to_string(kMaxRank));
  }
  input.mean = floats(object, "mean", what);
  input.std = floats(object, "std", what);
  const auto channels = static_cast<std::size_t>(input.shape[0]);
  if (input.mean.size() != input.std.size() || (!input.mean.empty() && input.mean.size() != channels)) {
    throw Error(what + ": " + std::to_string(input.mean.size()) + " values of \"mean\" and " +
                std::to_string(input.std.size()) + " of \"std\", wanted none or " + std::to_string(channels) +
                " of each, one per channel");
  }
  if (std::any_of(input.std.begin(), input.std.end(), [](float value) { return !(value > 0); })) {
    throw Error(what + ": \"std\" has a value that is not positive");
  }
  if (object.contains("classes")) {
    for (const Json& value : array_member(object, "classes", what)) {
      if (!value.is_string()) {
        throw Error(what + ": \"classes\"[" + std::to_string(input.classes.size()) + "] is not a string");
      }
      input.classes.push_back(value.get<std::string>());
    }
  }
  return input;
}

std::vector<std::size_t> parse_inputs(const Json& object, std::size_t index, std::size_t count,
                                      const std::string& what) {
  const Json& array = array_member(object, "inputs", what);
  if (array.size() != count) {
    throw Error(what + ": " + std::to_string(array.size()) + " inputs, wanted " + std::to_string(count));
  }
  std::vector<std::size_t> inputs;
  for (const Json& value : array) {
    inputs.push_back(static_cast<std::size_t>(integer_value(value, 0, static_cast<std::int64_t>(index) - 1,
                                                            what + ": \"inputs\" (earlier nodes): one")));
  }
  return inputs;
}

void parse_bit_linear(const Json& object, Node& node, const std::string& what) {
  const std::string norm = string_member(object, "norm", what);
  if (norm != "rms" && norm != "none") {
    throw Error(what + ": \"norm\" is \"" + norm.substr(0, 60) + "\", wanted \"rms\" or \"none\"");
  }
  node.norm = norm == "rms" ? Norm::rms : Norm::none;
  if (object.contains("eps")) {
    node.eps = float_value(object["eps"], what + ": \"eps\"");
    if (node.eps <= 0) {
      throw Error(what + ": \"eps\" is " + object["eps"].dump() + ", wanted a positive number");
    }
  }
}

Node parse_node(const Json& object, std::size_t index, const std::string& file) {
  std::string what = file + ": node " + std::to_string(index);
  if (!object.is_object()) {
    throw Error(what + ": not an object");
  }
  Node node;
  node.op = op_from_name(string_member(object, "op", what), what);
  if ((index == 0) != (node.op == Op::input)) {
    throw Error(what + ": is \"" + std::string(name_of(node.op)) +
                "\", wanted \"input\" as node 0 and nowhere else");
  }
  what += " (" + std::string(name_of(node.op));
  if (has_weights(node.op)) {
    node.name = string_member(object, "name", what + ")");
    if (node.name.empty() || node.name.size() > 200) {
      throw Error(what + "): \"name\" has " + std::to_string(node.name.size()) + " bytes, wanted 1 to 200");
    }
    what += " \"" + node.name + "\"";
  }
  what += ")";
  switch (node.op) {
    case Op::input:
      check_keys(object, {"op"}, what);
      return node;
    case Op::conv2d:
      check_keys(object, {"op", "name", "inputs", "stride", "padding"}, what);
      node.stride = integer_member(object, "stride", 1, kMaxWindow, what);
      node.padding = integer_member(object, "padding", 0, kMaxWindow, what);
      break;
    case Op::linear:
      check_keys(object, {"op", "name", "inputs"}, what);
      break;
    case Op::bit_linear:
      check_keys(object, {"op", "name", "inputs", "norm", "eps"}, what);
      parse_bit_linear(object, node, what);
      break;
    case Op::max_pool2d:
    case Op::avg_pool2d:
      check_keys(object, {"op", "inputs", "kernel", "stride"}, what);
      node.kernel = integer_member(object, "kernel", 1, kMaxWindow, what);
      node.stride = integer_member(object, "stride", 1, kMaxWindow, what);
      break;
    case Op::relu:
    case Op::add:
    case Op::flatten:
      check_keys(object, {"op", "inputs"}, what);
      break;
  }
  node.inputs = parse_inputs(object, index, node.op == Op::add ? 2 : 1, what);
  return node;
}

/// A node that nobody reads is a sign of a damaged index, and names must lead to one node's tensors.
void check_wiring(const Graph& graph, const std::string& file) {
  std::vector<bool> used(graph.nodes.size(), false);
  std::map<std::string_view, std::size_t> names;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (const std::size_t input : node.inputs) {
      used[input] = true;
    }
    if (has_weights(node.op)) {
      if (const auto [at, fresh] = names.emplace(node.name, i); !fresh) {
        throw Error(file + ": " + describe(graph, i) + ": node " + std::to_string(at->second) +
                    " has the same name");
      }
    }
  }
  for (std::size_t i = 0; i + 1 < graph.nodes.size(); ++i) {
    if (!used[i]) {
      throw Error(file + ": " + describe(graph, i) + ": no node uses its result");
    }
  }
}

}  // namespace

std::string_view name_of(Op op) {
  return std::find_if(kOps.begin(), kOps.end(), [&](const auto& row) { return row.first == op; })->second;
}

std::string describe(const Graph& graph, std::size_t node) {
  const Node& at = graph.nodes[node];
  return "node " + std::to_string(node) + " (" + std::string(name_of(at.op)) +
         (at.name.empty() ? "" : " \"" + at.name + "\"") + ")";
}

Graph parse_graph(std::string_view json, const std::string& file) {
  const std::string what = file + ": metadata \"trit.model\"";
  const Json root = parse_strict_json(json, what);
  check_keys(root, {"input", "nodes"}, what);
  if (!root.contains("input")) {
    throw Error(what + ": no \"input\"");
  }
  Graph graph;
  graph.input = parse_input(root["input"], what + ": \"input\"");
  const Json& nodes = array_member(root, "nodes", what);
  if (nodes.size() < 2 || nodes.size() > kMaxNodes) {
    throw Error(what + ": " + std::to_string(nodes.size()) + " nodes, wanted the input and 1 to " +
                std::to_string(kMaxNodes - 1) + " more");
  }
  for (const Json& node : nodes) {
    graph.nodes.push_back(parse_node(node, graph.nodes.size(), file));
  }
  check_wiring(graph, file);
  return graph;
}

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
#include "runtime/graph.h"

#include <algorithm>
#include <map>

#include "trit/error.h"

namespace trit::runtime {
namespace {

using io::Json;
using io::JsonObject;

constexpr std::int64_t kMaxDimension = std::int64_t{1} << 28;  // as the elements of an activation (network.h)
constexpr std::size_t kMaxNodes = 4096;
constexpr std::size_t kMaxRank = 6;

const OperatorType& type_named(const std::string& name, const std::string& what) {
  const auto types = operator_types();
  const auto at =
      std::find_if(types.begin(), types.end(), [&](const auto* type) { return type->name == name; });
  if (at == types.end()) {
    std::string names = "input";
    for (const OperatorType* const type : types) {
      names += ", " + std::string(type->name);
    }
    throw Error(what + ": unknown op \"" + name.substr(0, 60) + "\", wanted one of " + names);
  }
  return **at;
}

std::vector<float> floats(const JsonObject& object, const char* key) {
  std::vector<float> values;
  if (object.contains(key)) {
    for (const Json& value : object.array(key)) {
      values.push_back(
          io::float_value(value, object.what() + ": \"" + key + "\"[" + std::to_string(values.size()) + "]"));
    }
  }
  return values;
}

ModelInput parse_input(const JsonObject& object) {
  const std::string& what = object.what();
  ModelInput input;
  for (const Json& value : object.array("shape")) {
    input.shape.push_back(io::integer_value(
        value, 1, kMaxDimension, what + ": \"shape\"[" + std::to_string(input.shape.size()) + "]"));
  }
  if (input.shape.empty() || input.shape.size() > kMaxRank) {
    throw Error(what + ": \"shape\" has " + std::to_string(input.shape.size()) + " dimensions, wanted 1 to " +
                std::to_string(kMaxRank));
  }
  input.mean = floats(object, "mean");
  input.std = floats(object, "std");
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
    for (const Json& value : object.array("classes")) {
      if (!value.is_string()) {
        throw Error(what + ": \"classes\"[" + std::to_string(input.classes.size()) + "] is not a string");
      }
      input.classes.push_back(value.get<std::string>());
    }
  }
  object.check_all_read();
  return input;
}

std::vector<std::size_t> parse_inputs(const JsonObject& object, std::size_t index, std::size_t count) {
  const Json& array = object.array("inputs");
  if (array.size() != count) {
    throw Error(object.what() + ": " + std::to_string(array.size()) + " inputs, wanted " +
                std::to_string(count));
  }
  std::vector<std::size_t> inputs;
  for (const Json& value : array) {
    inputs.push_back(
        static_cast<std::size_t>(io::integer_value(value, 0, static_cast<std::int64_t>(index) - 1,
                                                   object.what() + ": \"inputs\" (earlier nodes): one")));
  }
  return inputs;
}

Node parse_node(const Json& json, std::size_t index, const std::string& file) {
  const std::string what = file + ": node " + std::to_string(index);
  if (!json.is_object()) {
    throw Error(what + ": not an object");
  }
  JsonObject object(json, what);
  Node node;
  const std::string op = object.string("op");
  if ((index == 0) != (op == "input")) {
    throw Error(what + ": is \"" + op.substr(0, 60) + "\", wanted \"input\" as node 0 and nowhere else");
  }
  if (index == 0) {
    object.set_what(what + " (input)");
    object.check_all_read();
    return node;
  }
  const OperatorType& type = type_named(op, what);
  node.type = type.name;
  object.set_what(what + " (" + op + ")");
  if (type.has_tensors) {
    node.name = object.string("name");
    if (node.name.empty() || node.name.size() > 200) {
      throw Error(object.what() + ": \"name\" has " + std::to_string(node.name.size()) +
                  " bytes, wanted 1 to 200");
    }
    object.set_what(what + " (" + op + " \"" + node.name + "\")");
  }
  node.inputs = parse_inputs(object, index, type.inputs);
  node.op = type.make(object);
  object.check_all_read();
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
    if (!node.name.empty()) {
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

std::string describe(const Graph& graph, std::size_t node) {
  const Node& at = graph.nodes[node];
  return "node " + std::to_string(node) + " (" + std::string(at.type) +
         (at.name.empty() ? "" : " \"" + at.name + "\"") + ")";
}

Graph parse_graph(std::string_view text, const std::string& file) {
  const std::string what = file + ": metadata \"trit.model\"";
  const Json json = io::parse_json(text, what, io::kGraphRules);
  const JsonObject root(json, what);
  Graph graph;
  graph.input = parse_input(JsonObject(root.at("input"), what + ": \"input\""));
  const Json& nodes = root.array("nodes");
  root.check_all_read();
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

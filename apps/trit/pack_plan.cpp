// SPDX-License-Identifier: MIT
#include "pack_plan.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "output.h"
#include "trit/error.h"

namespace trit::cli {
namespace {

constexpr std::string_view kWeight = ".weight";
// std::regex recurses once a character: a name from a hostile file must not exhaust the stack.
constexpr std::size_t kLongestName = 4096;

bool accepts(const std::optional<std::regex>& filter, const std::string& name) {
  if (!filter) {
    return name.ends_with(kWeight);
  }
  if (name.size() > kLongestName) {
    throw Error(fmt::format("tensor {}...: a name of {} characters, at most {} work with --filter",
                            printable(name.substr(0, 40)), name.size(), kLongestName));
  }
  return std::regex_search(name, *filter);
}

// The layer that a matrix belongs to: "fc1" for "fc1.weight", else empty.
std::string layer_of(std::string_view name) {
  return name.ends_with(kWeight) ? std::string(name.substr(0, name.size() - kWeight.size())) : std::string();
}

// The graph with its linear nodes over packed matrices made ternary.
std::string ternary_graph(const std::string& text, const PackPlan& plan, const std::string& path) {
  auto graph = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!graph.is_object() || !graph.contains("nodes") || !graph["nodes"].is_array()) {
    throw Error(path + ": metadata trit.model is not the graph of a model");
  }
  std::set<std::string, std::less<>> left = plan.packed;
  for (auto& node : graph["nodes"]) {
    if (!node.is_object() || !node.contains("name") || !node["name"].is_string() || !node.contains("op")) {
      continue;
    }
    const std::string weight = node["name"].get<std::string>() + std::string(kWeight);
    if (!plan.packed.contains(weight)) {
      continue;
    }
    if (node["op"] != "linear") {
      throw Error(fmt::format("{}: {} belongs to a node of op {}; only a linear node's weight can be packed",
                              path, printable(weight), printable(node["op"].dump())));
    }
    node["op"] = "bit_linear";
    if (!node.contains("norm")) {
      node["norm"] = "none";
    }
    left.erase(weight);
  }
  if (!left.empty()) {
    throw Error(fmt::format("{}: {} is not the weight of a linear node of the file's graph (trit.model)",
                            path, printable(*left.begin())));
  }
  return graph.dump();
}

}  // namespace

PackPlan plan_pack(const io::Checkpoint& source, const std::optional<std::string>& filter) {
  const std::string path = source.path().string();
  std::optional<std::regex> expression;
  if (filter) {
    expression.emplace(*filter);
  }
  PackPlan plan;
  plan.metadata = source.metadata();
  for (const io::TensorInfo& tensor : source.tensors()) {
    const std::string name(tensor.name);
    if (!accepts(expression, name) || tensor.kind != io::TensorKind::floating || tensor.shape.size() != 2 ||
        tensor.shape[0] == 0 || tensor.shape[1] == 0) {
      continue;
    }
    if (source.find(name + "_scale") != nullptr) {
      throw Error(fmt::format("{}: {} cannot be packed: there is a tensor {}_scale already", path,
                              printable(name), printable(name)));
    }
    plan.packed.insert(name);
  }
  if (plan.packed.empty()) {
    throw Error(fmt::format("{}: nothing to pack: none of its {} tensors is a float matrix whose name {}",
                            path, source.tensors().size(),
                            filter ? "matches '" + *filter + "'" : "ends in '.weight'"));
  }
  for (const std::string& name : plan.packed) {
    const std::string layer = layer_of(name);
    for (const std::string& beside : {layer + ".bias", layer + ".norm.weight"}) {
      const io::TensorInfo* found = layer.empty() ? nullptr : source.find(beside);
      if (found != nullptr && found->shape.size() == 1 && found->kind == io::TensorKind::floating) {
        plan.converted.insert(beside);
      }
    }
  }
  if (const auto graph = plan.metadata.find("trit.model"); graph != plan.metadata.end()) {
    graph->second = ternary_graph(graph->second, plan, path);
  }
  return plan;
}

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
#include "pack_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <span>

#include "output.h"
#include "trit/error.h"

namespace trit::cli {
namespace {

constexpr std::string_view kWeight = ".weight";
// std::regex recurses for every character: a name from a hostile file must not exhaust the stack.
constexpr std::size_t kLongestName = 4096;

bool matches(const std::regex& filter, std::string_view name) {
  if (name.size() > kLongestName) {
    throw Error(fmt::format("tensor {}...: a name of {} characters, at most {} work with --filter",
                            printable(name.substr(0, 40)), name.size(), kLongestName));
  }
  return std::regex_search(name.begin(), name.end(), filter);
}

// Which float tensors stay float, and why.
class Choice {
 public:
  Choice(const io::LinearWeights& linear, const std::optional<std::string>& filter, bool has_graph)
      : linear_(linear), has_graph_(has_graph) {
    if (filter) {
      filter_.emplace(*filter);
    }
  }

  // Empty if it is to be packed.
  std::string why_float(const io::TensorInfo& tensor) const {
    const bool matrix = tensor.shape.size() == 2 && tensor.shape[0] > 0 && tensor.shape[1] > 0;
    if (filter_ && !matches(*filter_, tensor.name)) {
      return "not matched by --filter";
    }
    // In a graph the nodes say what a matrix is; ternary_graph() refuses those of other layers.
    if (matrix && (filter_ || (has_graph_ && tensor.name.ends_with(kWeight)))) {
      return "";
    }
    const auto why = linear_.why_not.find(tensor.name);
    return why == linear_.why_not.end() ? "" : why->second;
  }

 private:
  const io::LinearWeights& linear_;
  std::optional<std::regex> filter_;
  bool has_graph_;
};

// Whether the row has only the values -a, 0 and +a: the weights are already ternary.
bool first_row_is_ternary(const io::Checkpoint& source, const io::TensorInfo& tensor) {
  std::vector<float> row(static_cast<std::size_t>(tensor.shape[1]));
  source.read_floats(tensor, 0, row);
  const float largest = std::abs(
      *std::max_element(row.begin(), row.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
  return std::all_of(row.begin(), row.end(),
                     [&](float value) { return value == 0 || std::abs(value) == largest; });
}

// The layer of a matrix: "fc1" for "fc1.weight", otherwise empty.
std::string layer_of(std::string_view name) {
  return name.ends_with(kWeight) ? std::string(name.substr(0, name.size() - kWeight.size())) : std::string();
}

// The graph, in which linear nodes with packed matrices become bit_linear.
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
    // A bit_linear node may have float weights: it says which norm precedes them.
    if (node["op"] == "embedding") {
      left.erase(weight);
      continue;
    }
    if (node["op"] != "linear" && node["op"] != "bit_linear") {
      throw Error(
          fmt::format("{}: {} belongs to a node of op {}; only the weight of a linear, bit_linear or "
                      "embedding node can be packed",
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
  PackPlan plan;
  plan.metadata = source.metadata();
  const io::LinearWeights linear = io::find_linear_weights(source);
  plan.config_problem = linear.config_problem;
  const Choice choice(linear, filter, plan.metadata.contains("trit.model"));
  for (const io::TensorInfo& tensor : source.tensors()) {
    if (tensor.kind != io::TensorKind::floating) {
      continue;
    }
    std::string name(tensor.name);
    if (std::string why = choice.why_float(tensor); !why.empty()) {
      if (tensor.shape.size() > 1) {
        plan.left_float.push_back({std::move(name), std::move(why)});
      }
      continue;
    }
    if (source.find(name + "_scale") != nullptr) {
      throw Error(fmt::format("{}: {} cannot be packed: there is already a tensor {}_scale", path,
                              printable(name), printable(name)));
    }
    plan.packed.insert(std::move(name));
  }
  if (plan.packed.empty()) {
    throw Error(fmt::format(
        "{}: nothing to pack: none of its {} tensors is a float matrix {}{}", path, source.tensors().size(),
        filter ? "whose name matches '" + *filter + "'" : "of a linear layer ('*.weight')",
        filter ? "" : left_float_text(plan.left_float, "; left float: ")));
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
  plan.trained_ternary =
      linear.bitnet || std::all_of(plan.packed.begin(), plan.packed.end(), [&](const auto& name) {
        return first_row_is_ternary(source, *source.find(name));
      });
  return plan;
}

std::string left_float_text(const std::vector<LeftFloat>& left, const std::string& before) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;  // reason, names
  for (const LeftFloat& tensor : left) {
    auto at =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == tensor.why; });
    if (at == groups.end()) {
      at = groups.insert(groups.end(), {tensor.why, {}});
    }
    at->second.push_back(printable(tensor.name));
  }
  constexpr std::size_t kMost = 3;
  std::string text;
  for (const auto& [why, names] : groups) {
    text += text.empty() ? before : "; ";
    const auto first = std::span(names).first(std::min(kMost, names.size()));
    text += fmt::format("{}{} ({})", fmt::join(first, ", "),
                        names.size() > kMost ? fmt::format(" and {} more", names.size() - kMost) : "", why);
  }
  return text;
}

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
#include "io/model_graph.h"

#include <algorithm>

#include "io/strict_json.h"
#include "trit/error.h"

namespace trit::io {
namespace {

Json parse(std::string_view text) {
  Json json = parse_json(text, "trit.model", kGraphRules);
  const bool nodes = json.is_object() && json.contains("nodes") && json["nodes"].is_array();
  if (!nodes ||
      !std::all_of(json["nodes"].begin(), json["nodes"].end(), [](const Json& n) { return n.is_object(); })) {
    throw Error("trit.model has no array \"nodes\" of objects");
  }
  return json;
}

std::string text_of(const Json& node, const char* key) {
  const auto at = node.find(key);
  return at != node.end() && at->is_string() ? at->get<std::string>() : std::string();
}

}  // namespace

std::vector<GraphLayer> graph_layers(std::string_view text) {
  std::vector<GraphLayer> layers;
  const Json json = parse(text);
  for (const Json& node : json["nodes"]) {
    if (text_of(node, "op") == "bit_linear") {
      GraphLayer layer{text_of(node, "name"), text_of(node, "norm") == "rms"};
      const auto eps = node.find("eps");
      layer.eps = eps != node.end() && eps->is_number() ? eps->get<double>() : layer.eps;
      layer.token_scale_per_group = text_of(node, "token_scale") == "group";
      layers.push_back(std::move(layer));
    }
  }
  return layers;
}

std::optional<std::string> rename_graph(
    std::string_view text, const std::function<std::optional<std::string>(const std::string& name)>& rename) {
  Json json = parse(text);
  for (Json& node : json["nodes"]) {
    const std::string name = text_of(node, "name");
    if (name.empty()) {
      continue;
    }
    const auto renamed = rename(name);
    if (!renamed) {
      return std::nullopt;
    }
    node["name"] = *renamed;
  }
  return json.dump();
}

}  // namespace trit::io

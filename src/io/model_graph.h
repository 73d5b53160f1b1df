// SPDX-License-Identifier: MIT
//
// What conversion needs of the network that "trit.model" describes (docs/format.md): its ternary layers, and
// their names.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trit::io {

struct GraphLayer {
  std::string name;
  bool rms_norm = false;
  double eps = 1e-6;
  bool token_scale_per_group = false;
};

/// The bit_linear nodes. Throws trit::Error if the text is not such a description, or longer than 1 MiB.
std::vector<GraphLayer> graph_layers(std::string_view text);

/// The description with each node's name replaced; nothing if `rename` has none for one of them.
std::optional<std::string> rename_graph(
    std::string_view text, const std::function<std::optional<std::string>(const std::string& name)>& rename);

}  // namespace trit::io

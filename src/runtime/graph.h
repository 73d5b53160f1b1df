// SPDX-License-Identifier: MIT
//
// The graph of a model file: the JSON text of its metadata "trit.model" (docs/format.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/ops/operator.h"
#include "trit/model.h"

namespace trit::runtime {

struct Node {
  std::string_view type = "input";  // "conv2d", as in the file
  std::string name;                 // of nodes with tensors
  std::vector<std::size_t> inputs;  // indexes of earlier nodes
  std::unique_ptr<Operator> op;     // null for the input
};

/// Node 0 is the input, the last node is the output, and every other node's result is used.
struct Graph {
  ModelInput input;
  std::vector<Node> nodes;
};

/// "node 4 (bit_linear \"fc1\")", for messages.
std::string describe(const Graph& graph, std::size_t node);

/// Parses and checks everything that needs no tensor. `file` starts every message. Throws Error.
Graph parse_graph(std::string_view text, const std::string& file);

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// The graph of a model file: the JSON text of its metadata "trit.model" (docs/format.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trit/model.h"
#include "trit/quantize.h"

namespace trit::runtime {

using Shape = std::vector<std::int64_t>;

enum class Op : std::uint8_t {
  input,
  conv2d,
  linear,
  bit_linear,
  relu,
  max_pool2d,
  avg_pool2d,
  add,
  flatten,
};

/// "conv2d", as in the file.
std::string_view name_of(Op op);
/// Whether nodes of this op have a name and tensors.
constexpr bool has_weights(Op op) { return op == Op::conv2d || op == Op::linear || op == Op::bit_linear; }

struct Node {
  Op op = Op::input;
  std::string name;                 // has_weights only
  std::vector<std::size_t> inputs;  // indexes of earlier nodes
  std::int64_t kernel = 0;          // pools
  std::int64_t stride = 1;          // conv2d, pools
  std::int64_t padding = 0;         // conv2d: zeros on each side
  Norm norm = Norm::none;           // bit_linear
  float eps = 1e-6F;                // bit_linear with Norm::rms
};

/// Node 0 is the input, the last node is the output, and every other node's result is used.
struct Graph {
  ModelInput input;
  std::vector<Node> nodes;
};

/// "node 4 (bit_linear \"fc1\")", for messages.
std::string describe(const Graph& graph, std::size_t node);

/// Parses and checks everything that needs no tensor. `file` starts every message. Throws Error.
Graph parse_graph(std::string_view json, const std::string& file);

}  // namespace trit::runtime

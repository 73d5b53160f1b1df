// SPDX-License-Identifier: MIT
#include "runtime/fusion.h"

#include <algorithm>

namespace trit::runtime {
namespace {

/// How many nodes read each value.
std::vector<std::size_t> count_readers(const std::vector<Node>& nodes) {
  std::vector<std::size_t> readers(nodes.size(), 0);
  for (const Node& node : nodes) {
    for (const std::size_t input : node.inputs) {
      ++readers[input];
    }
  }
  return readers;
}

/// Whether `node` has become a part of `step`, whose value it alone reads.
bool join(const std::vector<Node>& nodes, std::size_t node, Step& step) {
  Operator& own = *nodes[node].op;
  if (step.pool) {
    return false;
  }
  if (own.pool() != nullptr) {
    step.pool = node;
  } else if (own.is_relu() && !step.relu) {
    step.relu = true;
  } else if (step.relu || !own.fold_into(*nodes[step.node].op)) {
    return false;
  }
  step.result = node;
  return true;
}

}  // namespace

std::vector<Step> fuse(Network& network) {
  const std::vector<Node>& nodes = network.graph.nodes;
  const std::vector<std::size_t> readers = count_readers(nodes);
  std::vector<Step> steps;
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    const std::size_t before = nodes[i].inputs[0];
    const auto at =
        std::find_if(steps.begin(), steps.end(), [&](const Step& step) { return step.result == before; });
    if (at != steps.end() && readers[before] == 1 && join(nodes, i, *at)) {
      continue;
    }
    const bool is_pool = nodes[i].op->pool() != nullptr;
    steps.push_back({.node = i,
                     .result = i,
                     .relu = nodes[i].op->is_relu(),
                     .pool = is_pool ? std::optional(i) : std::nullopt});
  }
  return steps;
}

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
#include "runtime/dense_groups.h"

#include <algorithm>

namespace trit::runtime {
namespace {

bool is_pool(Op op) { return op == Op::max_pool2d || op == Op::avg_pool2d; }

bool takes_pool(Op op) { return op == Op::conv2d || op == Op::relu; }

/// How often the segment's steps and what comes behind it read the value.
std::ptrdiff_t readers(const DenseSegment& segment, std::size_t value) {
  std::ptrdiff_t count = std::count(segment.outputs.begin(), segment.outputs.end(), value);
  for (const DenseStep& step : segment.steps) {
    count += std::count(step.inputs.begin(), step.inputs.end(), value);
  }
  return count;
}

}  // namespace

std::vector<DenseGroup> group_steps(const Network& network, const DenseSegment& segment) {
  const auto op_of = [&](std::size_t node) { return network.graph.nodes[node].op; };
  std::vector<DenseGroup> groups;
  for (const DenseStep& step : segment.steps) {
    if (is_pool(op_of(step.node))) {
      const auto before = std::find_if(groups.begin(), groups.end(), [&](const DenseGroup& group) {
        return group.output() == step.inputs[0] && !group.pool && takes_pool(op_of(group.step.node));
      });
      if (before != groups.end() && readers(segment, step.inputs[0]) == 1) {
        before->pool = step.node;
        continue;
      }
    }
    groups.push_back({step, std::nullopt});
  }
  return groups;
}

}  // namespace trit::runtime

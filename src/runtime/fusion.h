// SPDX-License-Identifier: MIT
//
// Which nodes of a network run as one step: an operator, the ReLU behind it, and the pool behind that.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "runtime/network.h"

namespace trit::runtime {

/// max(x, 0) of the operator's result, then the pool of that. A ReLU or pool with no operator to join is a
/// step whose operator gives its input back.
struct Step {
  std::size_t node;    // of the operator
  std::size_t result;  // the node whose value the step gives
  bool relu = false;
  std::optional<std::size_t> pool = std::nullopt;  // its node
};

/// The steps of a network, in order. A node joins the step before it where nothing else reads the value in
/// between; one that only scales and shifts channels becomes a part of the weights in front of it
/// (Operator::fold_into), which changes `network`.
std::vector<Step> fuse(Network& network);

}  // namespace trit::runtime

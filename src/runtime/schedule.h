// SPDX-License-Identifier: MIT
//
// A network as steps: runs of float layers that one library call takes whole (it chooses the memory layouts
// inside), and ternary layers between them. Values are named by the node that makes them.
#pragma once

#include <cstddef>
#include <variant>
#include <vector>

#include "runtime/network.h"

namespace trit::runtime {

/// One float operation, or one float operation and the ReLU behind it (then `output` is the ReLU's node).
struct DenseStep {
  std::size_t node;
  std::vector<std::size_t> inputs;
  std::size_t output;
  bool relu = false;
};

/// Float operations without a ternary layer between them. Values that enter or leave are plain row-major.
struct DenseSegment {
  std::vector<DenseStep> steps;
  std::vector<std::size_t> inputs;
  std::vector<std::size_t> outputs;
};

/// One ternary layer, and the ReLU behind it.
struct BitLinearStep {
  std::size_t node;
  std::size_t input;
  std::size_t output;
  bool relu = false;
};

struct Schedule {
  std::vector<std::variant<DenseSegment, BitLinearStep>> steps;
  /// storage[node]: the node whose memory holds the node's value: itself, or for a flatten between segments
  /// the node that it renames.
  std::vector<std::size_t> storage;
};

Schedule make_schedule(const Network& network);

}  // namespace trit::runtime

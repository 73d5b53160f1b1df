// SPDX-License-Identifier: MIT
//
// A graph with its tensors: every shape known, every tensor but the ternary codes checked, nothing prepared
// for a machine yet.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/graph.h"
#include "trit/safetensors.h"

namespace trit::runtime {

/// Elements of one image's activation: 2^28 floats are 1 GiB.
inline constexpr std::int64_t kMaxActivation = std::int64_t{1} << 28;

struct Network {
  Graph graph;
  std::vector<Shape> shapes;  // of each node's result, without the batch
  std::vector<LayerInfo> layers;
};

/// Elements that the layer with the most reads and writes for one image, at least 1.
std::int64_t largest_layer(const Network& network);

/// Reads and checks a model file, but not the codes of ternary matrices, which stay in `file`: who prepares
/// them reads them once and checks them then. Throws Error that names the file, the node, the tensor, the
/// shape found and the shape wanted.
Network load_network(const io::SafetensorsFile& file);

}  // namespace trit::runtime

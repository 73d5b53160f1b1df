// SPDX-License-Identifier: MIT
//
// A graph with its tensors: every shape known, every tensor but the ternary codes checked, nothing prepared
// for a machine yet.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/graph.h"
#include "trit/format.h"
#include "trit/safetensors.h"

namespace trit::runtime {

/// Elements of one image's activation: 2^28 floats are 1 GiB.
inline constexpr std::int64_t kMaxActivation = std::int64_t{1} << 28;

/// The tensors of a node. Empty vectors: the file has no such tensor.
struct Parameters {
  Shape weight_shape;                   // unpacked: [out, in] or [out, in, kh, kw]
  std::vector<float> weight;            // conv2d, linear
  std::vector<float> bias;              // [out]
  std::vector<float> norm_weight;       // bit_linear: [in]
  std::vector<float> scale;             // bit_linear: [1] or [out]
  std::span<const std::uint8_t> codes;  // bit_linear: in the mapped file
};

struct Network {
  Graph graph;
  std::vector<Shape> shapes;           // of each node's result, without the batch
  std::vector<Parameters> parameters;  // of each node
  std::vector<LayerInfo> layers;
};

/// Product of the dimensions.
std::int64_t numel(const Shape& shape);

/// Elements that the layer with the most reads and writes for one image, at least 1.
std::int64_t largest_layer(const Network& network);

/// Reads and checks a model file, but not the values of `codes`, which point into `file`: who prepares them
/// reads them once and checks them then. Throws Error that names the file, the node, the tensor, the shape
/// found and the shape wanted.
Network load_network(const io::SafetensorsFile& file);

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// A whole model file: graph, tensors, rotation, look-ups. A small network whose layers are ternary runs on the
// first input bytes: every index that is no row must have been refused before.
#include <algorithm>

#include "fuzz_file.h"
#include "runtime/network.h"
#include "trit/model.h"

namespace {

using namespace trit;

/// Enough for an embedding, a rotated layer and what lies between them.
constexpr std::int64_t kLargestLayer = 8192;

bool is_small(const runtime::Network& network) {
  return network.graph.nodes.size() <= 8 && runtime::largest_layer(network) <= kLargestLayer &&
         std::ranges::all_of(network.layers, [](const LayerInfo& layer) { return layer.op != "conv2d"; });
}

void run(std::span<const std::uint8_t> bytes) {
  const Model model =
      Model::load("x", {.backend = Backend::scalar, .threads = 1, .layout = PanelFormat::two_bit});
  std::vector<float> x(static_cast<std::size_t>(runtime::numel(model.input().shape)));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = bytes.empty() ? 0.0F : static_cast<float>(bytes[i % bytes.size()]);
  }
  model.run(x, 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::uint8_t> bytes = fuzz::framed_safetensors({data, size});
  fuzz::set_file("x", bytes);
  try {
    if (is_small(runtime::load_network(io::SafetensorsFile::open("x")))) {
      run(bytes);
    }
  } catch (const Error&) {
  }
  return 0;
}

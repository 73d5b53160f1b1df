// SPDX-License-Identifier: MIT
#include "runtime/winograd/layer.h"

namespace trit::runtime {

ConvolutionShape winograd_shape(const Network& network, std::size_t node) {
  const Shape& in = network.shapes[network.graph.nodes[node].inputs[0]];
  return {.channels = in[0],
          .height = in[1],
          .width = in[2],
          .out_channels = network.shapes[node][0],
          .padding = network.graph.nodes[node].padding};
}

std::unique_ptr<const WinogradConvolution> winograd_layer(const Network& network, std::size_t node,
                                                          Backend backend) {
  const Parameters& own = network.parameters[node];
  if (network.graph.nodes[node].op != Op::conv2d || network.graph.nodes[node].stride != 1 ||
      own.weight_shape[2] != 3 || own.weight_shape[3] != 3) {
    return nullptr;
  }
  const ConvolutionShape shape = winograd_shape(network, node);
  const winograd::Kernel* const kernel = winograd_kernel(backend);
  if (!WinogradConvolution::pays(kernel, shape, own.weight)) {
    return nullptr;
  }
  return std::make_unique<const WinogradConvolution>(*kernel, shape.channels, shape.out_channels, own.weight,
                                                     own.bias);
}

}  // namespace trit::runtime

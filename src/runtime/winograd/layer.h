// SPDX-License-Identifier: MIT
//
// Which convolutions of a network run by Winograd's algorithm.
#pragma once

#include <memory>

#include "runtime/network.h"
#include "runtime/winograd/winograd.h"

namespace trit::runtime {

/// Sizes of the node, a 3x3 convolution of stride 1.
ConvolutionShape winograd_shape(const Network& network, std::size_t node);

/// The node's convolution for machines that run `backend`; null where the node is something else, or a
/// direct convolution is faster. The node's weights must still be in `network`.
std::unique_ptr<const WinogradConvolution> winograd_layer(const Network& network, std::size_t node,
                                                          Backend backend);

}  // namespace trit::runtime

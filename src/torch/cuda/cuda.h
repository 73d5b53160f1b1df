// SPDX-License-Identifier: MIT
//
// What the device-independent part of the LibTorch half asks of the CUDA one. Free of CUDA's headers; a build
// without TRIT_CUDA has the same functions (packed_weight.cpp).
#pragma once

namespace trit::torch_layer::cuda {

/// Whether the current stream is being captured into a CUDA graph.
bool is_capturing();

}  // namespace trit::torch_layer::cuda

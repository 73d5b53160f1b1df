// SPDX-License-Identifier: MIT
//
// gradient_weight by a tile of one's choice, for tests and benchmarks.
#pragma once

#include "trit/cuda_backward.h"

namespace trit::cuda {

/// `rows` inputs x `outputs` outputs: 128 x 256, 256 x 128, 128 x 192 or 128 x 128.
void gradient_weight(const Device& device, const GradientWeight& args, std::int32_t rows,
                     std::int32_t outputs, Stream stream);

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// norm_backward by an arrangement of one's choice, for tests and benchmarks.
#pragma once

#include "trit/cuda_backward.h"

namespace trit::cuda {

/// A thread holds `steps` (1, 2 or 4) times 8 inputs of 4 / steps rows. More steps are taken where a block of 512
/// threads needs them.
void norm_backward(const NormBackward& args, int steps, Stream stream);

}  // namespace trit::cuda

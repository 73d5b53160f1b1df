// SPDX-License-Identifier: MIT
//
// The kernel of norm_backward that long rows take, at any length: for benchmarks.
#pragma once

#include "trit/cuda_backward.h"

namespace trit::cuda {

/// norm_backward_fits must be true.
void norm_backward_in_columns(const NormBackward& args, Stream stream);

}  // namespace trit::cuda

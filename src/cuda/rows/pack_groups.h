// SPDX-License-Identifier: MIT
#pragma once

#include "trit/cuda.h"

namespace trit::cuda {

/// pack_weights with group scales, its arguments checked (pack_groups.cu).
void pack_groups(const PackWeights& args, Stream stream);

}  // namespace trit::cuda

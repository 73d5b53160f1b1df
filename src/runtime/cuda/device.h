// SPDX-License-Identifier: MIT
//
// The GPU that models run on: the first that the driver shows (CUDA_VISIBLE_DEVICES chooses another).
#pragma once

#include <string>

#include "trit/cuda.h"

namespace trit::runtime::gpu {

struct Gpu {
  std::string name;
  cuda::Device device;
};

/// Throws Error where there is no driver, one that is too old, no GPU, or one that is too old: it says what
/// was found and what works.
Gpu find_gpu();

}  // namespace trit::runtime::gpu

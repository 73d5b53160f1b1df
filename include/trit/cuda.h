// SPDX-License-Identifier: MIT
#pragma once

struct CUstream_st;

namespace trit::cuda {

/// A cudaStream_t, so that this header needs none of CUDA's.
using Stream = CUstream_st*;

}  // namespace trit::cuda

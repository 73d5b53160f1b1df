// SPDX-License-Identifier: MIT
//
// Reading device memory as fast as a kernel can: the limit of what is bound by its weights.
#pragma once

#include <cstddef>

#include "trit/cuda.h"

namespace trit::apps {

/// Bytes to read for a bandwidth: of 1 GiB a part would come from the second-level cache each time (H200:
/// 4,490 GB/s against 4,553). A quarter of the memory that is free, where that is less.
std::size_t bytes_to_read();

/// Reads `bytes` (a multiple of 16) at `data`; `sink` holds 4 bytes that are not written in practice.
void read_on_gpu(const void* data, std::size_t bytes, void* sink, int multiprocessors, cuda::Stream stream);

}  // namespace trit::apps

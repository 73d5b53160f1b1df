// SPDX-License-Identifier: MIT
//
// Reads device memory as fast as a kernel can: the limit of kernels that are bound by their weights.
#pragma once

#include <cstddef>

#include "trit/cuda.h"

namespace trit::bench {

/// Bytes to read when measuring the bandwidth: 4 GiB, or a quarter of the free memory if that is less. With
/// 1 GiB a part would come from the L2 cache each time (H200: 4,490 GB/s instead of 4,553).
std::size_t bytes_to_read();

/// Reads `bytes` (a multiple of 16) at `data`. `sink` holds 4 bytes that are never written in practice.
void read_on_gpu(const void* data, std::size_t bytes, void* sink, int multiprocessors, cuda::Stream stream);

}  // namespace trit::bench

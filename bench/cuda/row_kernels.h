// SPDX-License-Identifier: MIT
//
// What bench_cuda measures beside products: the memory's read bandwidth and the kernels that it bounds.
#pragma once

#include <cuda_runtime_api.h>

#include <nlohmann/json.hpp>

#include "trit/cuda.h"

namespace trit::bench {

/// GB/s of reading 4 GiB.
double memory_read_rate(const cuda::Device& device, cudaStream_t stream);

/// norm_quant of bfloat16 rows, and absmean with ternarize_pack: times, and bytes read and written once per
/// second as a share of `memory_read`, GB/s.
nlohmann::ordered_json measure_row_kernels(const cuda::Device& device, double memory_read, int rounds,
                                           cudaStream_t stream);

}  // namespace trit::bench

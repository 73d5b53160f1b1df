// SPDX-License-Identifier: MIT
#include "bench/lib/gpu_read.h"

#include <algorithm>

#include "cuda/common/launch.cuh"

namespace trit::bench {
namespace {

constexpr int kThreads = 512;
// An H200, GB/s: 4,462 with one load in flight per thread and 4 blocks a multiprocessor, 4,535 with 4 or 8
// loads, 4,553 with 4 loads and 8 blocks or more. What the memory holds (nothing yet, one byte, random bytes)
// makes no difference.
constexpr int kLoads = 4;
constexpr int kBlocks = 8;

__global__ __launch_bounds__(kThreads) void read_kernel(const uint4* data, std::size_t count,
                                                        std::uint32_t* sink) {
  const std::size_t step = std::size_t{gridDim.x} * kThreads;
  std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  std::uint32_t sum = 0;
  for (; i + (kLoads - 1) * step < count; i += kLoads * step) {
    uint4 values[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      values[load] = data[i + load * step];
    }
#pragma unroll
    for (const uint4& value : values) {
      sum ^= value.x ^ value.y ^ value.z ^ value.w;
    }
  }
  for (; i < count; i += step) {
    sum ^= data[i].x ^ data[i].y ^ data[i].z ^ data[i].w;
  }
  if (sum == 0x9e3779b9U) {
    *sink = sum;
  }
}

}  // namespace

std::size_t bytes_to_read() {
  constexpr std::size_t kMax = std::size_t{4} << 30;
  constexpr std::size_t kStep = std::size_t{1} << 20;
  std::size_t available = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&available, &total) != cudaSuccess) {
    return kStep;
  }
  return std::max(kStep, std::min(kMax, available / 4 / kStep * kStep));
}

void read_on_gpu(const void* data, std::size_t bytes, void* sink, int multiprocessors, cuda::Stream stream) {
  const std::size_t count = bytes / sizeof(uint4);
  const std::size_t wanted = (count + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(
      std::clamp<std::size_t>(wanted, 1, static_cast<std::size_t>(multiprocessors) * kBlocks));
  cuda::launch<read_kernel>("read", {.grid = {blocks}, .block = {kThreads}}, stream,
                            static_cast<const uint4*>(data), count, static_cast<std::uint32_t*>(sink));
}

}  // namespace trit::bench

// SPDX-License-Identifier: MIT
//
// Launching a kernel: launch<kernel<...>>("name", {...}, stream, arguments...). On the CPU the emulator runs
// it at once.
#pragma once

#include <atomic>
#include <string>

#include "cuda/common/platform.cuh"
#include "trit/cuda.h"
#include "trit/error.h"

namespace trit::cuda {

/// How a kernel is launched.
struct LaunchShape {
  dim3 grid = {};
  dim3 block = {};
  unsigned shared_bytes = 0;
  bool programmatic = false;  // may start before its predecessor has ended; the kernel waits itself
  unsigned cluster = 1;       // blocks of a cluster, along x
  bool cooperative = false;   // all blocks run at once
};

/// Blocks of P x Q warps: block (32, P, Q).
inline LaunchShape shape_of_warps(int blocks, int row_warps, int k_warps, unsigned shared_bytes,
                                  bool programmatic) {
  return {.grid = {static_cast<unsigned>(blocks)},
          .block = {32, static_cast<unsigned>(row_warps), static_cast<unsigned>(k_warps)},
          .shared_bytes = shared_bytes,
          .programmatic = programmatic};
}

#if defined(__CUDACC__)
/// Throws Error for any failure that CUDA reports: a launch never waits, so none of the kernel's own.
inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw Error(std::string("cuda: ") + what + ": " + cudaGetErrorString(error));
  }
}

template <auto kKernel, typename... Arguments>
void launch(const char* name, const LaunchShape& shape, Stream stream, const Arguments&... arguments) {
  if (shape.shared_bytes > 48 * 1024) {
    // A kernel's limit is set once per device; the call is cheap, but not free, and devices beyond 64 pay it
    // each time.
    static std::atomic<std::uint64_t> raised{0};
    int device = 0;
    check(cudaGetDevice(&device), name);
    const std::uint64_t bit = device < 64 ? std::uint64_t{1} << device : 0;
    if ((raised.load(std::memory_order_relaxed) & bit) == 0) {
      int limit = 0;
      check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
      check(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit), name);
      raised.fetch_or(bit, std::memory_order_relaxed);
    }
  }
  cudaLaunchAttribute attributes[3];
  unsigned count = 0;
  if (shape.programmatic) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kKernel, arguments...), name);
}
#else
template <auto kKernel, typename... Arguments>
void launch(const char* name, const LaunchShape& shape, Stream /*stream*/, const Arguments&... arguments) {
  emulator::run({.grid = shape.grid,
                 .block = shape.block,
                 .shared_bytes = shape.shared_bytes,
                 .cluster = shape.cooperative ? shape.grid.x : shape.cluster,
                 .programmatic = shape.programmatic},
                name, [&] { kKernel(arguments...); });
}
#endif

}  // namespace trit::cuda

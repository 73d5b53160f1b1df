// SPDX-License-Identifier: MIT
//
// The language that kernels are written in: CUDA C++ under nvcc, and the same words on the CPU under a C++
// compiler, where the tests run the kernels thread by thread (tests/cuda/emulator). Two rules keep a source
// fit for both:
//   * all shared memory is dynamic: dynamic_shared(), never a __shared__ variable;
//   * launches go through launch() of launch.cuh, and instructions that C++ has no word for through ptx.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "cuda/emulator/device.h"
#endif

namespace trit::cuda {

#if defined(__CUDACC__)
/// The block's dynamic shared memory, aligned to 1024 bytes.
__device__ __forceinline__ std::uint8_t* dynamic_shared() {
  extern __shared__ __align__(1024) std::uint8_t trit_dynamic_shared[];
  return trit_dynamic_shared;
}
#else
using std::max;
using std::min;
inline std::uint8_t* dynamic_shared() { return emulator::shared_memory(); }
#endif

/// Integer arithmetic of tiles, on both sides.
template <typename Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}
template <typename Integer>
__host__ __device__ constexpr Integer round_up(Integer a, Integer b) {
  return ceil_div(a, b) * b;
}

}  // namespace trit::cuda

// SPDX-License-Identifier: MIT
//
// The tests of src/cuda on a GPU. Where there is none they are skipped, which ctest shows, and the reason is
// printed.
#include <gtest/gtest.h>

#include <cstdio>

#include "cuda/gpu_array.h"

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;  // SKIP_RETURN_CODE of the test
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU here (%s)\n",
                error != cudaSuccess ? cudaGetErrorString(error) : "the driver sees none");
    return kSkipped;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

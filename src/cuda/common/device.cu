// SPDX-License-Identifier: MIT
//
// The properties of a GPU, from CUDA. The only file of this folder that the emulator does not run.
#include <cuda_runtime.h>

#include <string>

#include "cuda/common/launch.cuh"

namespace trit::cuda {

Device device_info(int index) {
  const auto attribute = [index](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, index), "device_info");
    return value;
  };
  const Device device{.compute_capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                                            attribute(cudaDevAttrComputeCapabilityMinor),
                      .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
                      .shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
  if (device.compute_capability < 80) {
    throw Error("cuda::device_info: device " + std::to_string(index) + " has compute capability " +
                std::to_string(device.compute_capability / 10) + "." +
                std::to_string(device.compute_capability % 10) + ", wanted 8.0 or newer");
  }
  return device;
}

}  // namespace trit::cuda

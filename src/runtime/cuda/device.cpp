// SPDX-License-Identifier: MIT
#include "runtime/cuda/device.h"

#include <cuda_runtime_api.h>

#include "runtime/cuda/resources.h"
#include "trit/backend.h"

namespace trit::runtime::gpu {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string what_works() {
  std::string text = "; CPU backends that this machine has: ";
  for (const std::string& name : available_backends()) {
    text += (text.back() == ' ' ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

Gpu find_gpu() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    throw Error("backend 'cuda': no NVIDIA driver is installed here (libcuda.so.1), wanted one for CUDA " +
                version_text(CUDART_VERSION / 1000 * 1000) + " or newer" + what_works());
  }
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    throw Error("backend 'cuda': the NVIDIA driver is for CUDA " + version_text(driver) +
                ", wanted one for CUDA " + version_text(CUDART_VERSION / 1000 * 1000) + " or newer" +
                what_works());
  }
  if (error != cudaSuccess || devices == 0) {
    throw Error(std::string("backend 'cuda': the NVIDIA driver shows no GPU (") +
                (error == cudaSuccess ? "none is visible" : cudaGetErrorString(error)) + ")" + what_works());
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "the properties of GPU 0");
  if (properties.major < 8) {
    throw Error("backend 'cuda': " + std::string(properties.name) + " has compute capability " +
                std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                ", wanted 8.0 or newer (A100, RTX 30, or what came after them)" + what_works());
  }
  return {properties.name, cuda::device_info(0)};
}

}  // namespace trit::runtime::gpu

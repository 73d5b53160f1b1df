// SPDX-License-Identifier: MIT
//
// Device memory of a real GPU, for the same tests that the emulator runs.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trit/error.h"

namespace trit::test {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw Error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

/// `count` values aligned to 16 bytes plus `offset` values, between canaries.
template <typename Value>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count, std::size_t offset = 0, std::uint64_t seed = 1)
      : count_(count), before_(kGuardBytes + offset * sizeof(Value)) {
    std::vector<std::uint8_t> bytes(before_ + count * sizeof(Value) + kGuardBytes, kCanary);
    for (std::size_t i = 0; i < count * sizeof(Value);
         ++i) {  // what a kernel does not write must not look right
      bytes[before_ + i] = static_cast<std::uint8_t>(seed * 151 + i * 89 + 7);
    }
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, bytes.size()), "cudaMalloc");
    memory_.reset(static_cast<std::uint8_t*>(memory));
    check_cuda(cudaMemcpy(memory, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  explicit DeviceArray(std::span<const Value> values, std::size_t offset = 0)
      : DeviceArray(values.size(), offset) {
    check_cuda(cudaMemcpy(data(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Value* data() const { return reinterpret_cast<Value*>(memory_.get() + before_); }
  std::size_t size() const { return count_; }
  std::vector<Value> host() const {
    std::vector<Value> values(count_);
    check_cuda(cudaDeviceSynchronize(), "a kernel");
    check_cuda(cudaMemcpy(values.data(), data(), count_ * sizeof(Value), cudaMemcpyDeviceToHost),
               "cudaMemcpy");
    return values;
  }
  bool intact() const {
    std::vector<std::uint8_t> bytes(before_ + count_ * sizeof(Value) + kGuardBytes);
    check_cuda(cudaDeviceSynchronize(), "a kernel");
    check_cuda(cudaMemcpy(bytes.data(), memory_.get(), bytes.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    const auto is_canary = [](std::uint8_t byte) { return byte == kCanary; };
    return std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(before_), is_canary) &&
           std::all_of(bytes.end() - kGuardBytes, bytes.end(), is_canary);
  }

 private:
  static constexpr std::size_t kGuardBytes = 256;
  static constexpr std::uint8_t kCanary = 0xc5;
  struct Free {
    void operator()(std::uint8_t* memory) const { cudaFree(memory); }
  };
  std::size_t count_;
  std::size_t before_;
  std::unique_ptr<std::uint8_t, Free> memory_;
};

}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// What the GPU benchmarks share: device memory and a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include "bench/lib/gpu_timing.h"
#include "trit/error.h"

namespace trit::bench {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw Error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

template <typename Value>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t count) : count_(count) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, std::max<std::size_t>(count, 1) * sizeof(Value)), "cudaMalloc");
    memory_.reset(static_cast<Value*>(memory));
  }
  Value* data() const { return memory_.get(); }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(Value); }
  /// Returns when it is done: a stream that does not wait for the default one may use the memory then.
  void fill_bytes(int byte) const {
    check(cudaMemset(memory_.get(), byte, bytes()), "cudaMemset");
    check(cudaStreamSynchronize(nullptr), "cudaMemset");
  }

 private:
  struct Free {
    void operator()(Value* memory) const { cudaFree(memory); }
  };
  std::size_t count_ = 0;
  std::unique_ptr<Value, Free> memory_;
};

class OwnStream {
 public:
  OwnStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

using Graph = LaunchGraph;

}  // namespace trit::bench

// SPDX-License-Identifier: MIT
//
// What a GPU gives out, each freed at the end of its owner's life; CUDA's errors as trit::Error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "trit/error.h"

namespace trit::runtime::gpu {

inline void check(cudaError_t error, const std::string& what) {
  if (error != cudaSuccess) {
    cudaGetLastError();  // what can be gone on from must not be found again by the next call
    throw Error("cuda: " + what + ": " + cudaGetErrorString(error));
  }
}

struct FreeDevice {
  void operator()(std::byte* memory) const { cudaFree(memory); }
};
struct FreePinned {
  void operator()(std::byte* memory) const { cudaFreeHost(memory); }
};
struct DestroyStream {
  void operator()(CUstream_st* stream) const { cudaStreamDestroy(stream); }
};
struct DestroyGraph {
  void operator()(CUgraphExec_st* graph) const { cudaGraphExecDestroy(graph); }
};

using DeviceMemory = std::unique_ptr<std::byte, FreeDevice>;
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;
using StreamHandle = std::unique_ptr<CUstream_st, DestroyStream>;
using GraphHandle = std::unique_ptr<CUgraphExec_st, DestroyGraph>;

/// A stream that waits for no other, the default one included.
inline StreamHandle make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  return StreamHandle(stream);
}

/// What `record` puts into `stream`, as a graph. Where it throws, the stream captures no longer.
inline GraphHandle capture_graph(CUstream_st* stream, const std::function<void()>& record) {
  class Capture {
   public:
    explicit Capture(CUstream_st* stream) : stream_(stream) {
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
    }
    ~Capture() {
      if (graph_ == nullptr) {
        cudaStreamEndCapture(stream_, &graph_);
      }
      if (graph_ != nullptr) {
        cudaGraphDestroy(graph_);
      }
      cudaGetLastError();  // a capture that was broken off is an error of its own
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    cudaGraph_t end() {
      check(cudaStreamEndCapture(stream_, &graph_), "capturing a graph");
      return graph_;
    }

   private:
    CUstream_st* stream_;
    cudaGraph_t graph_ = nullptr;
  };
  Capture capture(stream);
  record();
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, capture.end(), 0), "making a graph");
  return GraphHandle(executable);
}

/// Null for no bytes. Throws Error that says how much is free.
inline DeviceMemory allocate_device(std::size_t bytes, const std::string& what) {
  void* memory = nullptr;
  if (bytes == 0) {
    return nullptr;
  }
  if (const cudaError_t error = cudaMalloc(&memory, bytes); error != cudaSuccess) {
    cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error("cuda: no memory for " + what + ": wanted " + std::to_string(bytes) + " bytes, " +
                std::to_string(free) + " of the GPU's " + std::to_string(total) + " are free (" +
                cudaGetErrorString(error) + ")");
  }
  return DeviceMemory(static_cast<std::byte*>(memory));
}

inline PinnedMemory allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault),
        "pinned memory of " + std::to_string(bytes) + " bytes");
  return PinnedMemory(static_cast<std::byte*>(memory));
}

}  // namespace trit::runtime::gpu

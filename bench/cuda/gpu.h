// SPDX-License-Identifier: MIT
//
// What the GPU benchmarks stand on: device memory, a captured graph, and the time of its replays.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/timing.h"
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
  void fill_bytes(int byte) const { check(cudaMemset(memory_.get(), byte, bytes()), "cudaMemset"); }

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

/// `launches` calls of record(i), i = 0 .. launches - 1, as one graph. Per-launch time is of a replay.
class Graph {
 public:
  Graph(cudaStream_t stream, int launches, const std::function<void(int)>& record) : launches_(launches) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      for (int i = 0; i < launches; ++i) {
        record(i);
      }
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) {
        cudaGraphDestroy(graph);
      }
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate");
    executable_.reset(executable);
  }
  void replay(cudaStream_t stream) const {
    check(cudaGraphLaunch(executable_.get(), stream), "cudaGraphLaunch");
  }
  int launches() const { return launches_; }

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t executable) const { cudaGraphExecDestroy(executable); }
  };
  int launches_;
  std::unique_ptr<CUgraphExec_st, Destroy> executable_;
};

/// Microseconds per launch of each graph, interleaved: every round replays each; medians over rounds. A graph
/// runs for `settle_milliseconds` before its time is taken, so that clock and power are its own and not those
/// of the one before.
inline std::vector<double> time_graphs(cudaStream_t stream, std::span<const Graph> graphs, int rounds,
                                       double settle_milliseconds = 0) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  const auto milliseconds = [&](const Graph& graph) {
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    graph.replay(stream);
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "a kernel");
    float time = 0.0F;
    check(cudaEventElapsedTime(&time, begin, end), "cudaEventElapsedTime");
    return static_cast<double>(time);
  };
  std::vector<std::vector<double>> times(graphs.size());
  for (const Graph& graph : graphs) {
    milliseconds(graph);  // warms up
  }
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t j = 0; j < graphs.size(); ++j) {
      const std::size_t i =
          (j + static_cast<std::size_t>(round)) % graphs.size();  // nobody is always behind the same one
      for (double settled = 0; settled < settle_milliseconds;) {
        settled += milliseconds(graphs[i]);
      }
      times[i].push_back(1e3 * milliseconds(graphs[i]) / graphs[i].launches());
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::vector<double> medians;
  for (const std::vector<double>& of_one : times) {
    medians.push_back(apps::median(of_one));
  }
  return medians;
}

}  // namespace trit::bench

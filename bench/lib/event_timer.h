// SPDX-License-Identifier: MIT
//
// The time of work on a stream, by the GPU's own clock.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "trit/error.h"

namespace trit::bench {

class EventTimer {
 public:
  explicit EventTimer(cudaStream_t stream) : stream_(stream), begin_(make_event()), end_(make_event()) {}

  /// Milliseconds between the first and the last of what work() queues on the stream. Waits for its end; throws
  /// Error where a launch or a kernel failed.
  template <typename Work>
  double milliseconds(const Work& work) const {
    check(cudaEventRecord(begin_.get(), stream_), "timing");
    work();
    check(cudaEventRecord(end_.get(), stream_), "timing");
    check(cudaEventSynchronize(end_.get()), "a kernel");
    float time = 0.0F;
    check(cudaEventElapsedTime(&time, begin_.get(), end_.get()), "timing");
    return static_cast<double>(time);
  }

 private:
  struct Destroy {
    void operator()(CUevent_st* event) const { cudaEventDestroy(event); }
  };
  using Event = std::unique_ptr<CUevent_st, Destroy>;

  static void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
      throw Error(std::string(what) + ": " + cudaGetErrorString(error));
    }
  }
  static Event make_event() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "an event");
    return Event(event);
  }

  cudaStream_t stream_;
  Event begin_, end_;
};

}  // namespace trit::bench

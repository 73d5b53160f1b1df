// SPDX-License-Identifier: MIT
//
// A network for one number of images, as one CUDA graph: upload, layers, download.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cuda/autotune/tuning.h"
#include "runtime/cuda/dense.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/resources.h"
#include "runtime/cuda/weights.h"
#include "runtime/schedule.h"

namespace trit::runtime::gpu {

/// A stream and the libraries' handles on it; the programs of one slot run one after the other.
struct Slot {
  StreamHandle stream;
  std::unique_ptr<Cudnn> cudnn;    // null where no layer needs it
  std::unique_ptr<Cublas> cublas;  // likewise
};

struct ProgramParts {
  const Network& network;
  const Schedule& schedule;
  const Weights& weights;
  const cuda::TunedPlans& plans;
  cuda::Device device;
};

class Program {
 public:
  /// With `bytes_in` the input is bytes, and `normalize` holds its channels, means and deviations.
  Program(const ProgramParts& parts, Slot& slot, std::int64_t images, bool bytes_in,
          const Normalize& normalize);

  std::int64_t images() const { return images_; }
  std::size_t device_bytes() const { return device_bytes_; }
  /// Pinned memory: x or bytes to write before start(), y to read after finish().
  std::byte* input() { return input_.get(); }
  const float* output() const { return reinterpret_cast<const float*>(output_.get()); }
  void start();
  void finish();

 private:
  struct Buffer;
  class Builder;
  void run_steps();

  cuda::Stream stream_;
  std::int64_t images_;
  std::size_t device_bytes_ = 0;
  std::size_t input_bytes_ = 0, output_bytes_ = 0;
  PinnedMemory input_, output_;
  DeviceMemory pixels_, arena_, workspace_;
  float* device_input_ = nullptr;
  const float* device_output_ = nullptr;
  std::vector<std::unique_ptr<ConvolutionPlan>> convolutions_;
  std::vector<std::function<void()>> steps_;
  GraphHandle graph_;
};

}  // namespace trit::runtime::gpu

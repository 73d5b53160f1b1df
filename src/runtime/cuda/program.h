// SPDX-License-Identifier: MIT
//
// A network for one number of images, as one CUDA graph: upload, layers, download.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "cuda/autotune/tuning.h"
#include "runtime/cuda/dense.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/resources.h"
#include "runtime/cuda/weights.h"
#include "runtime/fusion.h"
#include "runtime/planned_steps.h"

namespace trit::runtime::gpu {

/// A stream and the libraries' handles on it; the programs of one slot run one after the other.
struct Slot {
  StreamHandle stream;
  std::unique_ptr<Cudnn> cudnn;    // null until a layer needs it
  std::unique_ptr<Cublas> cublas;  // likewise
};

struct ProgramParts {
  const Network& network;
  std::span<const Step> steps;
  const cuda::TunedPlans& plans;
  cuda::Device device;
};

/// What an operator has added to a program: a buffer of values, and the bias that is still to be added to
/// them. The pool or ReLU behind the operator adds it in the same pass.
struct Result {
  std::size_t buffer;
  const float* bias = nullptr;
  std::int64_t channels = 1;   // of the bias
  bool channels_last = false;  // else [channels, ...]
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
  friend class ProgramBuilder;
  void run_steps();

  cuda::Stream stream_;
  std::int64_t images_;
  std::size_t device_bytes_ = 0;
  std::size_t input_bytes_ = 0, output_bytes_ = 0;
  PinnedMemory input_, output_;
  DeviceMemory pixels_, arena_, workspace_;
  std::byte* device_input_ = nullptr;
  const std::byte* device_output_ = nullptr;
  std::vector<std::unique_ptr<ConvolutionPlan>> convolutions_;
  PlannedSteps steps_;
  GraphHandle graph_;
};

/// What an operator's lower_on_gpu() adds to a program with. Values are row-major, one buffer each.
class ProgramBuilder {
 public:
  ProgramBuilder(Program& program, const ProgramParts& parts, Slot& slot);
  void build(bool bytes_in, const Normalize& normalize);

  std::int64_t images() const { return program_.images_; }
  cuda::Stream stream() const { return slot_.stream.get(); }
  const cuda::Device& device() const { return parts_.device; }
  /// Of a node's value, without the batch; and its floats, all images together.
  const Shape& shape(std::size_t node) const { return parts_.network.shapes[node]; }
  std::int64_t values(std::size_t node) const { return images() * numel(shape(node)); }

  /// The buffer of an input of the step's operator.
  std::size_t input(const Step& step, std::size_t index = 0) const;
  std::size_t new_buffer(std::size_t bytes) { return program_.steps_.add_buffer(bytes); }
  /// A buffer for a node's value.
  std::size_t new_values(std::size_t node);
  void add(std::initializer_list<std::size_t> buffers, PlannedSteps::Function step) {
    program_.steps_.add(std::span(buffers.begin(), buffers.size()), std::move(step));
  }

  /// The plan lives as long as the program.
  const ConvolutionPlan& plan_convolution(const Convolution& convolution);
  Cublas& cublas();
  /// The plan of a ternary product. All products share the workspace, which is there once the steps run.
  /// `group`: inputs of a weight scale, or 0; the types of group scales.
  cuda::ProductPlan plan_product(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features,
                                 std::int64_t group, DataType group_scale_type,
                                 TokenScaleGranularity token_scales);
  const DeviceMemory& product_workspace() const { return program_.workspace_; }

 private:
  std::size_t activate(const Step& step, Result result, bool in_place);

  Program& program_;
  const ProgramParts& parts_;
  Slot& slot_;
  const std::vector<Node>& nodes_;
  std::vector<std::size_t> buffer_of_;  // by node
  std::size_t workspace_bytes_ = 0;
};

}  // namespace trit::runtime::gpu

// SPDX-License-Identifier: MIT
//
// Training steps on a GPU with no work for the host between them: batch, forward, backward, clipping, loss
// scaling, optimiser and bookkeeping of a step are one CUDA graph, and what changes from step to step (the
// place in the data, the learning rate, the sums) lies in GPU memory.
#pragma once

#include <ATen/cuda/CUDAGraph.h>
#include <torch/torch.h>

#include <map>
#include <memory>

#include "train_cifar10/gpu/images.h"
#include "train_cifar10/learner.h"

namespace trit::train::gpu {

class Steps {
 public:
  /// `learner` must stay. Trains on the first `images` images.
  Steps(const TrainOptions& options, Learner& learner, const Images& dataset, std::int64_t images);

  /// The steps of an epoch from `batch` on follow; `step` counts from the start of the run.
  void begin_epoch(std::int64_t epoch, std::int64_t batch, std::int64_t step, std::int64_t skipped);
  /// Takes `count` steps and waits for them. Sums are over these steps.
  Progress run(std::int64_t count);

 private:
  void take_step(std::int64_t images);
  void step_on_device(std::int64_t images);

  TrainOptions options_;
  Learner& learner_;
  const Images& dataset_;
  std::int64_t images_;
  c10::cuda::CUDAStream stream_;  // captures cannot be made on the default stream
  torch::Tensor progress_;        // uint8 [sizeof(Progress)], the GPU's
  torch::Tensor order_;           // int32 [images]
  torch::Tensor rates_;           // float32 [steps]
  torch::Tensor learning_rate_;   // float32 [1]
  Progress now_{};

  /// Steps of one batch size: the first few as they come, then one graph.
  struct Captured {
    int seen = 0;
    std::unique_ptr<at::cuda::CUDAGraph> graph;
  };
  std::map<std::int64_t, Captured> captured_;  // by images
};

}  // namespace trit::train::gpu

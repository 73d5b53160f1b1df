// SPDX-License-Identifier: MIT
//
// Training steps on a GPU without host work between them. Batch, forward, backward, clipping, loss scaling,
// optimiser and bookkeeping of a step are one CUDA graph (with several processes no graph: a replayed
// collective would have no timeout). What changes from step to step (position in the data, learning rate,
// sums) is kept in GPU memory.
#pragma once

#include <ATen/cuda/CUDAGraph.h>
#include <torch/torch.h>

#include <map>
#include <memory>

#include "train_cifar10/gpu/images.h"
#include "train_cifar10/step_runner.h"

namespace trit::train::gpu {

class Steps final : public StepRunner {
 public:
  Steps(const TrainOptions& options, const Processes& processes, const TrainingData& data, Learner& learner);

  void begin_epoch(const Position& position) override;
  Done run(std::int64_t max_steps) override;
  Evaluation evaluate(const std::function<bool()>& stop) override;

 private:
  void take_step(std::int64_t images);
  void step_on_device(std::int64_t whole);  // images of the whole batch

  TrainOptions options_;
  const Processes& processes_;
  Learner& learner_;
  Images train_, test_;
  std::int64_t images_;           // of an epoch
  c10::cuda::CUDAStream stream_;  // the default stream cannot be captured
  torch::Tensor progress_;        // uint8 [sizeof(Progress)], on the GPU
  torch::Tensor order_;           // int32 [images]
  torch::Tensor rates_;           // float32 [steps of the run]
  torch::Tensor learning_rate_;   // float32 [1]
  Progress now_{};

  /// Steps of one batch size: the first few are run one by one, then captured in a graph.
  struct Captured {
    int seen = 0;
    std::unique_ptr<at::cuda::CUDAGraph> graph;
  };
  std::map<std::int64_t, Captured> captured_;  // by images
};

}  // namespace trit::train::gpu

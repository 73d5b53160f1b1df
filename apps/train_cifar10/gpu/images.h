// SPDX-License-Identifier: MIT
//
// A data set in GPU memory, as bytes: CIFAR-10's training images are 154 MB.
#pragma once

#include <torch/torch.h>

#include "common/datasets.h"
#include "train_cifar10/evaluate.h"
#include "train_cifar10/gpu/kernels.h"

namespace trit::train::gpu {

class Images {
 public:
  Images(const apps::ImageDataset& dataset, torch::Device device);

  std::int64_t count() const { return labels_.numel(); }
  torch::Device device() const { return labels_.device(); }

  /// x [images, 3, 32, 32] in channels-last order and labels int64 [images].
  struct Batch {
    torch::Tensor x, labels;
  };
  /// The images [first, first + images) as they are.
  Batch batch(std::int64_t first, std::int64_t images) const;
  /// What a batch of the training order is made with; the caller fills in the rest.
  Batch batch(BatchKernel kernel, torch::ScalarType type) const;

 private:
  torch::Tensor pixels_;  // uint8 [count, 3, 32, 32]
  torch::Tensor labels_;  // uint8 [count]
  torch::Tensor table_;   // float32 [3, 256]
};

/// evaluate() of the same images without leaving the GPU: the host waits once.
Evaluation evaluate(SimpleBitNetCNN& network, const Images& images);

}  // namespace trit::train::gpu

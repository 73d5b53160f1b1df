// SPDX-License-Identifier: MIT
//
// A data set in GPU memory, as bytes: the training images of CIFAR-10 take 154 MB.
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

  /// The images [first, first + images), normalised but not augmented.
  ImageBatch batch(std::int64_t first, std::int64_t images) const;
  /// A training batch. The caller fills in the fields of `kernel` that are not the data set's.
  ImageBatch batch(BatchKernel kernel, torch::ScalarType type) const;

 private:
  torch::Tensor pixels_;  // uint8 [count, 3, 32, 32]
  torch::Tensor labels_;  // uint8 [count]
  torch::Tensor table_;   // float32 [3, 256]
};

}  // namespace trit::train::gpu

// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "train_cifar10/network.h"
#include "train_cifar10/processes.h"

namespace trit::train {

struct Evaluation {
  double loss = 0.0;                      // mean cross entropy
  double accuracy = 0.0;                  // percent
  std::vector<std::uint8_t> predictions;  // class of each image
};

/// x [images, 3, 32, 32] in channels-last order and labels int64 [images], on the network's device.
struct ImageBatch {
  torch::Tensor x, labels;
};

/// The network on `images` images in fp32, as the exported model runs, divided among the processes.
/// batch(first, count) returns the images [first, first + count). `stop` is asked between batches; an
/// evaluation that one process stops means nothing.
Evaluation evaluate(SimpleBitNetCNN& network, const Processes& processes, std::int64_t images,
                    std::int64_t batch_size,
                    const std::function<ImageBatch(std::int64_t first, std::int64_t count)>& batch,
                    const std::function<bool()>& stop);

}  // namespace trit::train

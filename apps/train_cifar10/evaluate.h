// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "common/datasets.h"
#include "train_cifar10/network.h"

namespace trit::train {

struct Evaluation {
  double loss = 0.0;                      // mean cross entropy
  double accuracy = 0.0;                  // percent
  std::vector<std::uint8_t> predictions;  // class of each image
};

/// The network on a whole data set, in fp32 as the exported model runs. `stop` is asked between batches; an
/// evaluation that was stopped is without meaning.
Evaluation evaluate(SimpleBitNetCNN& network, const apps::ImageDataset& dataset, torch::Device device,
                    const std::function<bool()>& stop);

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>

#include "common/datasets.h"
#include "train_cifar10/options.h"

namespace trit::train {

struct TrainingData {
  apps::ImageDataset train, test;
  std::int64_t images;      // that an epoch takes, the first ones of `train`
  std::int64_t batches;     // steps of an epoch
  std::string fingerprint;  // of the training images and labels, to recognise them in a resumed run
};

/// Reads the data set that the options name. Throws trit::Error.
TrainingData load_data(const TrainOptions& options);

}  // namespace trit::train

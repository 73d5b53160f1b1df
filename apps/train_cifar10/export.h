// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

#include "common/datasets.h"
#include "train_cifar10/network.h"

namespace trit::train {

/// Writes the trained network as a model file that trit::Model and the `trit` command run without torch:
/// ternary weights at 2 bits, everything else in float32, the graph in the metadata (docs/format.md).
/// `dataset` gives the mean and std of the input and the names of the classes. Equal parameters give equal
/// files. Throws trit::Error.
void export_model(const std::filesystem::path& path, const SimpleBitNetCNN& network,
                  const apps::ImageDataset& dataset);

}  // namespace trit::train

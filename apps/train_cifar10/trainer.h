// SPDX-License-Identifier: MIT
#pragma once

#include "train_cifar10/options.h"

namespace trit::train {

/// Trains, saves checkpoints, evaluates and exports as the options say. Returns the exit code: 0, or 130 if
/// interrupted (after saving). Throws trit::Error and c10::Error.
int train(TrainOptions options);

}  // namespace trit::train

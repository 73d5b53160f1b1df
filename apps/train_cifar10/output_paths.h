// SPDX-License-Identifier: MIT
//
// The files that a run writes outside its folder. They are checked before it begins, so that hours of training
// do not end with a mistyped path.
#pragma once

#include "train_cifar10/options.h"

namespace trit::train {

/// --metrics, or OUT/metrics.jsonl.
std::filesystem::path metrics_path(const TrainOptions& options);

/// Throws trit::Error, with the option and the path, for a missing or read-only folder, a folder or device in
/// place of a file, one file for two purposes, and for a new run a metrics file with content. Creates nothing.
void check_output_paths(const TrainOptions& options);

}  // namespace trit::train

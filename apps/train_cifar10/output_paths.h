// SPDX-License-Identifier: MIT
//
// The files that a run writes outside its folder, looked at before it begins: hours of training must not end
// in a path that was mistyped.
#pragma once

#include "train_cifar10/options.h"

namespace trit::train {

/// OUT/metrics.jsonl, or what --metrics says.
std::filesystem::path metrics_path(const TrainOptions& options);

/// Throws trit::Error that names the option and the path: a folder that is not there or not writable, a
/// folder or device where a file is wanted, one file for two purposes, and for a run that begins a metrics
/// file that has content. Creates nothing.
void check_output_paths(const TrainOptions& options);

}  // namespace trit::train

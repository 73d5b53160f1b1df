// SPDX-License-Identifier: MIT
//
// What the program says a user may do next: commands that work as they are printed, and what accuracy to
// expect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train_cifar10/options.h"

namespace trit::train {

/// "'" around what a shell would not take as one word as it is.
std::string shell_quoted(const std::string& text);

/// The program that is running, as it can be called from here; its neighbour `name`, one in a `.venv/bin`
/// above it, or one on PATH. Empty if there is none.
std::string this_program();
std::string find_program(const std::string& name);

/// The command that goes on with an interrupted run.
std::string resume_command(const TrainOptions& options);

/// After the export: how to evaluate the model without torch and how to look at the curves. A program that
/// is not on this machine is left out.
std::vector<std::string> closing_hints(const TrainOptions& options);

/// For an accuracy (percent) close to chance: that it is, and what more steps reach. Else empty.
std::string note_on_accuracy(apps::DatasetName dataset, double accuracy, std::int64_t steps);

}  // namespace trit::train

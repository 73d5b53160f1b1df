// SPDX-License-Identifier: MIT
//
// Suggestions for the user: commands that work as they are printed, and the accuracy to expect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train_cifar10/options.h"

namespace trit::train {

/// `text` as one word of a shell: quoted if need be.
std::string shell_quoted(const std::string& text);

/// How to call the running program from the current folder.
/// find_program: the program `name` beside it, in a `.venv/bin` above it, or on PATH; empty if there is none.
std::string this_program();
std::string find_program(const std::string& name);

/// The command that resumes an interrupted run.
std::string resume_command(const TrainOptions& options);

/// After the export: how to evaluate the model without torch and how to view the curves. Programs that are not
/// on this machine are left out.
std::vector<std::string> closing_hints(const TrainOptions& options);

/// A note for an accuracy (percent) close to chance: what more steps reach. Empty for other accuracies.
std::string note_on_accuracy(apps::DatasetName dataset, double accuracy, std::int64_t steps);

}  // namespace trit::train

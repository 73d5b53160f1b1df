// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "train_cifar10/options.h"

namespace trit::train {

/// The learning rate of optimiser step `step` (0-based) of `steps_per_epoch * options.epochs`.
///
/// The first warmup_epochs, but at most a fifth of all steps, rise linearly: lr * (step + 1) / warm-up steps.
/// Then, with p in [0, 1] the share of the remaining steps that is done:
///   cosine    lr * (1 + cos(pi p)) / 2
///   constant  lr
/// onecycle has its own rise, over 30 % of all steps from lr / 25 along a cosine, and falls to lr / 250,000
/// along another (Smith and Topin, arXiv:1708.07120, in the form of torch.optim.lr_scheduler.OneCycleLR).
double learning_rate(const TrainOptions& options, std::int64_t steps_per_epoch, std::int64_t step);

}  // namespace trit::train

// SPDX-License-Identifier: MIT
#include "train_cifar10/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trit::train {
namespace {

constexpr double kMaxWarmup = 0.2;  // of all steps: a run of one epoch should not end in its warm-up

/// From `begin` at p = 0 to `end` at p = 1 along half a cosine.
double cosine(double begin, double end, double p) {
  return end + (begin - end) * 0.5 * (1.0 + std::cos(std::numbers::pi * p));
}

}  // namespace

double learning_rate(const TrainOptions& options, std::int64_t steps_per_epoch, std::int64_t step) {
  const double peak = options.learning_rate;
  const auto now = static_cast<double>(step);
  const auto steps = static_cast<double>(steps_per_epoch * options.epochs);
  if (options.schedule == Schedule::onecycle) {
    const double top = std::max(1.0, 0.3 * steps - 1.0), last = std::max(top + 1.0, steps - 1.0);
    return now <= top ? cosine(peak / 25.0, peak, now / top)
                      : cosine(peak, peak / 250'000.0, std::min(1.0, (now - top) / (last - top)));
  }
  const double warmup =
      std::floor(std::min(options.warmup_epochs * static_cast<double>(steps_per_epoch), kMaxWarmup * steps));
  if (now < warmup) return peak * (now + 1.0) / warmup;
  if (options.schedule == Schedule::constant) return peak;
  return cosine(peak, 0.0, (now - warmup) / std::max(1.0, steps - warmup));
}

}  // namespace trit::train

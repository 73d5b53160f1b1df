// SPDX-License-Identifier: MIT
#include "cuda/autotune/autotune.h"

#include <algorithm>
#include <numeric>

namespace trit::cuda {
namespace {

/// Candidates that are timed again, beside the default plan.
constexpr std::size_t kFinalists = 5;
/// A candidate must be faster than the default plan by this factor to be kept: medians of one plan differ by
/// 1 % from run to run.
constexpr double kMinGain = 1.02;

}  // namespace

Autotuned autotune(const Device& device, std::int64_t tokens, std::int64_t out_features,
                   std::int64_t in_features, int rounds, PlanTimer& timer) {
  std::vector<ProductPlan> plans = possible_plans(device, tokens, out_features, in_features);
  const ProductPlan usual = default_plan(device, tokens, out_features, in_features);
  std::erase(plans, usual);
  plans.insert(plans.begin(), usual);

  const std::vector<double> first = timer.time(plans, 1);
  std::vector<std::size_t> order(plans.size() - 1);
  std::iota(order.begin(), order.end(), std::size_t{1});
  std::ranges::sort(order, {}, [&](std::size_t i) { return first[i]; });
  order.resize(std::min(order.size(), kFinalists));
  std::vector<ProductPlan> finalists{usual};
  for (const std::size_t i : order) {
    finalists.push_back(plans[i]);
  }
  for (const ProductPlan& plan : finalists) {
    timer.check(plan);
  }
  const std::vector<double> times = timer.time(finalists, rounds);
  auto best = static_cast<std::size_t>(std::ranges::min_element(times) - times.begin());
  if (times[0] < kMinGain * times[best]) {
    best = 0;
  }
  return {.default_plan = usual,
          .best = finalists[best],
          .candidates = plans.size(),
          .default_microseconds = times[0],
          .best_microseconds = times[best]};
}

}  // namespace trit::cuda

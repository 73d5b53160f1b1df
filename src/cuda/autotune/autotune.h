// SPDX-License-Identifier: MIT
//
// The autotuner of a GPU's products: times every candidate for a shape once, then the best few and the
// default plan in turn. tuning.h keeps what it finds. Measuring is the caller's (PlanTimer), so that the
// search needs no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/plan.h"

namespace trit::cuda {

/// Runs the product that is tuned.
class PlanTimer {
 public:
  virtual ~PlanTimer() = default;
  /// Microseconds of one product by each plan: medians of `rounds` rounds, each of which runs every plan.
  virtual std::vector<double> time(std::span<const ProductPlan> plans, int rounds) = 0;
  /// Throws Error unless the plan gives the reference's bits.
  virtual void check(const ProductPlan& plan) = 0;
};

struct Autotuned {
  ProductPlan default_plan;
  ProductPlan best;        // the default plan, unless another one is clearly faster
  std::size_t candidates;  // timed
  double default_microseconds, best_microseconds;
};

/// Finds the fastest plan of one product; `rounds` are those of the final. Throws what `timer` throws.
Autotuned autotune(const Device& device, std::int64_t tokens, std::int64_t out_features,
                   std::int64_t in_features, int rounds, PlanTimer& timer);

}  // namespace trit::cuda

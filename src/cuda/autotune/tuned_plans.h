// SPDX-License-Identifier: MIT
//
// How the products of one GPU are computed: by the plans that were measured, else by the table.
#pragma once

#include "cuda/autotune/tuning.h"
#include "runtime/cuda/device.h"

namespace trit::runtime::gpu {

class TunedPlans {
 public:
  /// Reads the plans of this GPU (load_tuning).
  explicit TunedPlans(const Gpu& gpu);

  cuda::ProductPlan plan(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) const;
  /// Where measured plans come from; empty where the table alone decides.
  std::string source() const { return tuning_.size() > 0 ? file_.path.string() : ""; }

 private:
  cuda::Device device_;
  TuningFile file_;
  Tuning tuning_;
};

}  // namespace trit::runtime::gpu

// SPDX-License-Identifier: MIT
#include "cuda/autotune/tuned_plans.h"

namespace trit::runtime::gpu {

TunedPlans::TunedPlans(const Gpu& gpu)
    : device_(gpu.device),
      file_(tuning_file(tuning_key(gpu.name, gpu.device))),
      tuning_(load_tuning(file_, tuning_key(gpu.name, gpu.device))) {}

cuda::ProductPlan TunedPlans::plan(std::int64_t tokens, std::int64_t out_features,
                                   std::int64_t in_features) const {
  const cuda::ProductPlan* const measured = tuning_.find(tokens, out_features, in_features);
  // The file may be older than the kernels: what cannot run is no error.
  return measured != nullptr && cuda::can_run(device_, *measured, tokens, out_features, in_features)
             ? *measured
             : cuda::default_plan(device_, tokens, out_features, in_features);
}

}  // namespace trit::runtime::gpu

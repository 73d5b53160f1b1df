// SPDX-License-Identifier: MIT
//
// The kernels' threads inside LibTorch: its own pool, so that at::set_num_threads() counts and nothing is
// oversubscribed.
#pragma once

#include <functional>

#include "trit/parallel.h"

namespace trit::torch_layer {

/// at::parallel_for as a trit::Parallel.
class TorchParallel final : public Parallel {
 public:
  int threads() const override;
  void run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) override;
};

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
#include "torch/parallel.h"

#include <ATen/Parallel.h>

namespace trit::torch_layer {

int TorchParallel::threads() const { return at::get_num_threads(); }

void TorchParallel::run(std::int64_t tasks, const std::function<void(std::int64_t)>& task) {
  // Grain 1: the kernels cut their work into tasks that are worth a thread each.
  at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    const DefaultFloatingPoint environment;
    for (std::int64_t i = begin; i < end; ++i) {
      task(i);
    }
  });
}

}  // namespace trit::torch_layer

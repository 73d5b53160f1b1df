// SPDX-License-Identifier: MIT
#include "torch/distributed/row_sums.h"

#include <algorithm>

#include "torch/arguments.h"
#include "torch/parallel.h"
#include "trit/linear.h"
#if TRIT_TORCH_CUDA
#include <c10/cuda/CUDAGuard.h>

#include "torch/cuda/launch_context.h"
#endif

namespace trit::torch_layer {
namespace {

using torch::Tensor;

void cpu_row_sums(const Tensor& w, const Tensor& sums) {
  const CpuKernels& kernels = cpu_kernels_for(Backend::automatic);
  const std::int64_t rows = w.size(0);
  const std::int64_t features = w.size(1);
  const float* const from = w.const_data_ptr<float>();
  auto* const to = sums.mutable_data_ptr<float>();
  const std::int64_t tasks = std::min<std::int64_t>(rows, 64);
  TorchParallel().run(tasks, [&](std::int64_t task) {
    const DefaultFloatingPoint environment;
    for (std::int64_t row = task * rows / tasks; row < (task + 1) * rows / tasks; ++row) {
      to[row] = abs_sum_row(kernels, {from + row * features, static_cast<std::size_t>(features)});
    }
  });
}

}  // namespace

Tensor abs_row_sums(const Tensor& weight) {
  check_weight(weight);
  const Tensor w = float_of(weight);
  Tensor sums = torch::empty({w.size(0)}, w.options());
#if TRIT_TORCH_CUDA
  if (w.is_cuda()) {
    const c10::cuda::CUDAGuard guard(w.device());
    const Tensor scale = torch::empty({1}, w.options());
    trit::cuda::absmean(w.const_data_ptr<float>(), w.size(0), w.size(1), ScaleGranularity::tensor,
                        scale.mutable_data_ptr<float>(), sums.mutable_data_ptr(), cuda::stream_of(w));
    return sums;
  }
#endif
  cpu_row_sums(w, sums);
  return sums;
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
#include "torch/distributed/row_sums.h"

#include "torch/arguments.h"
#include "torch/parallel.h"
#include "trit/linear.h"
#if TRIT_TORCH_CUDA
#include <c10/cuda/CUDAGuard.h>

#include "torch/cuda/launch_context.h"
#endif

namespace trit::torch_layer {

using torch::Tensor;

Tensor abs_row_sums(const Tensor& weight) {
  check_weight(weight);
  const Tensor w = float_of(weight);
  Tensor sums = torch::empty({w.size(0)}, w.options());
#if TRIT_TORCH_CUDA
  if (w.is_cuda()) {
    const c10::cuda::CUDAGuard guard(w.device());
    trit::cuda::abs_sums(w.const_data_ptr<float>(), w.size(0), w.size(1), sums.mutable_data_ptr<float>(),
                         cuda::stream_of(w));
    return sums;
  }
#endif
  TorchParallel parallel;
  abs_sums(cpu_kernels_for(Backend::automatic), parallel, w.const_data_ptr<float>(), w.size(0), w.size(1),
           sums.mutable_data_ptr<float>());
  return sums;
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
//
// absmean per tensor in two operators on the CPU, for a weight whose rows are spread over processes: each sums
// its rows, then all have the sums of all rows. Together they give absmean's bits.
#include "torch_stable/tensors.h"
#include "trit/linear.h"
#include "trit/quantize.h"

namespace trit::torch_stable {
namespace {

Tensor abs_sums(const Tensor& weight) {
  check_weight(weight);
  const Tensor w = as_float(weight);
  Tensor sums = empty({w.size(0)}, ScalarType::Float, w);
  TorchParallel parallel;
  trit::abs_sums(cpu_kernels_for(Backend::automatic), parallel, floats(w), w.size(0), w.size(1),
                 data<float>(sums));
  return sums;
}

Tensor absmean_of_sums(const Tensor& sums, std::int64_t in_features) {
  check_abs_sums(sums, in_features);
  const Tensor rows = as_contiguous(sums);
  Tensor scale = empty({1}, ScalarType::Float, rows);
  const DefaultFloatingPoint environment;
  *data<float>(scale) =
      trit::absmean_of_sums({floats(rows), static_cast<std::size_t>(rows.numel())}, in_features);
  return scale;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
  m.impl("abs_sums", TORCH_BOX(&abs_sums));
  m.impl("absmean_of_sums", TORCH_BOX(&absmean_of_sums));
}

}  // namespace trit::torch_stable

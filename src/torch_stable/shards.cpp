// SPDX-License-Identifier: MIT
//
// absmean per tensor in two operators on the CPU, for a weight whose rows are spread over processes: each sums
// its rows, then all have the sums of all rows. Together they give absmean's bits.
#include <vector>

#include "cpu/generic/rows.h"
#include "cpu/table.h"
#include "torch_stable/tensors.h"
#include "trit/linear.h"

namespace trit::torch_stable {
namespace {

Tensor abs_sums(const Tensor& weight) {
  check_weight(weight);
  const Tensor w = as_float(weight);
  const std::int64_t in_features = w.size(1);
  Tensor sums = empty({w.size(0)}, ScalarType::Float, w);
  const CpuKernels& kernels = cpu_kernels_for(Backend::automatic);
  const float* const from = floats(w);
  auto* const to = data<float>(sums);
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  generic::for_rows(parallel, w.size(0), in_features, [&](std::int64_t row) {
    to[row] = kernels.abs_sum_row(from + row * in_features, in_features);
  });
  return sums;
}

Tensor absmean_of_sums(const Tensor& sums, std::int64_t in_features) {
  check_abs_sums(sums, in_features);
  const Tensor rows = as_contiguous(sums);
  const std::vector<double> terms(floats(rows), floats(rows) + rows.numel());
  Tensor scale = empty({1}, ScalarType::Float, rows);
  const DefaultFloatingPoint environment;
  const double count = static_cast<double>(rows.numel()) * static_cast<double>(in_features);
  const auto mean = static_cast<float>(lane_sum(terms) / count);
  *data<float>(scale) = mean < 1e-5F ? 1e-5F : mean;  // written so that a NaN passes
  return scale;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
  m.impl("abs_sums", TORCH_BOX(&abs_sums));
  m.impl("absmean_of_sums", TORCH_BOX(&absmean_of_sums));
}

}  // namespace trit::torch_stable

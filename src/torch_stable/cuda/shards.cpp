// SPDX-License-Identifier: MIT
//
// absmean per tensor in two operators on a GPU: ../shards.cpp.
#include "torch_stable/cuda/launch.h"
#include "trit/cuda.h"

namespace trit::torch_stable {
namespace {

Tensor abs_sums(const Tensor& weight) {
  check_weight(weight);
  const cuda::DeviceGuard guard(weight.get_device_index());
  const Tensor w = as_float(weight);
  Tensor sums = empty({w.size(0)}, ScalarType::Float, w);
  trit::cuda::abs_sums(floats(w), w.size(0), w.size(1), data<float>(sums), cuda::stream_of(w));
  return sums;
}

Tensor absmean_of_sums(const Tensor& sums, std::int64_t in_features) {
  check_abs_sums(sums, in_features);
  const cuda::DeviceGuard guard(sums.get_device_index());
  const Tensor rows = as_contiguous(sums);
  Tensor scale = empty({1}, ScalarType::Float, rows);
  trit::cuda::absmean_of_sums(floats(rows), rows.numel(), in_features, data<float>(scale),
                              cuda::stream_of(rows));
  return scale;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CUDA, m) {
  m.impl("abs_sums", TORCH_BOX(&abs_sums));
  m.impl("absmean_of_sums", TORCH_BOX(&absmean_of_sums));
}

}  // namespace trit::torch_stable

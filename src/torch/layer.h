// SPDX-License-Identifier: MIT
//
// What the operators of src/torch and src/torch_stable hand to the kernels of every device. Free of torch.
#pragma once

#include <cstdint>
#include <vector>

#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::torch_layer {

/// What an operator's arguments `per_row` and `group` ask for, and the shape of the scales then.
constexpr ScaleGranularity wanted_granularity(bool per_row, std::int64_t group) {
  return group != 0 ? ScaleGranularity::group : per_row ? ScaleGranularity::row : ScaleGranularity::tensor;
}
inline std::vector<std::int64_t> scale_shape(std::int64_t out_features, std::int64_t in_features,
                                             bool per_row, std::int64_t group) {
  if (group != 0) {
    return {out_features, groups_of(in_features, group)};
  }
  return {per_row ? out_features : 1};
}

/// A stored weight in a device's memory.
inline TernaryView ternary_view(std::int64_t out_features, std::int64_t in_features,
                                const std::uint8_t* codes, const float* scale, std::int64_t scales,
                                std::int64_t group) {
  return {out_features,
          in_features,
          {codes, static_cast<std::size_t>(out_features * packed_row_bytes(in_features))},
          {scale, static_cast<std::size_t>(scales)},
          group};
}

/// Rows of activations, `stride` elements apart.
struct RowsView {
  const void* x;
  DataType type;
  std::int64_t count;
  std::int64_t features;
  std::int64_t stride;
};
/// The norm in front of a layer; `weight` may be null for all ones.
struct NormView {
  bool rms;
  const float* weight;
  double eps;
};
/// trit::NormQuant or trit::cuda::NormQuant; rstd may be null.
template <typename Arguments>
Arguments norm_quant_arguments(const RowsView& rows, const NormView& norm, std::int8_t* q, float* scale,
                               float* rstd) {
  return {.x = rows.x,
          .x_type = rows.type,
          .tokens = rows.count,
          .in_features = rows.features,
          .x_stride = rows.stride,
          .norm = norm.rms ? Norm::rms : Norm::none,
          .norm_weight = norm.weight,
          .eps = static_cast<float>(norm.eps),
          .q = q,
          .scale = scale,
          .rstd = rstd};
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
//
// What the operators of every device check and convert alike.
#pragma once

#include <torch/torch.h>

#include <optional>

#include "trit/format.h"
#include "trit/quantize.h"

namespace trit::torch_layer {

/// The kernels' name of a type; `what` names the tensor in the error.
inline DataType data_type(torch::ScalarType type, const char* what) {
  switch (type) {
    case torch::kFloat:
      return DataType::float32;
    case torch::kBFloat16:
      return DataType::bfloat16;
    case torch::kHalf:
      return DataType::float16;
    default:
      TORCH_CHECK(false, "trit: ", what, " must be float32, bfloat16 or float16, found ", type);
  }
}

/// float32, contiguous: what the kernels take for weights, scales and biases. The tensor itself where it is
/// that already, without a call through the dispatcher.
inline torch::Tensor float_of(const torch::Tensor& tensor) {
  return tensor.scalar_type() == torch::kFloat && tensor.is_contiguous()
             ? tensor
             : tensor.to(torch::kFloat).contiguous();
}
inline std::optional<torch::Tensor> float_of(const std::optional<torch::Tensor>& tensor) {
  return tensor && tensor->defined() ? std::optional<torch::Tensor>(float_of(*tensor)) : std::nullopt;
}
inline const float* pointer_or_null(const std::optional<torch::Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

inline void check_weight(const torch::Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && weight.size(0) >= 1 && weight.size(1) >= 1 && weight.is_floating_point(),
              "trit: the weight must be a float matrix [out_features >= 1, in_features >= 1], found ",
              weight.toString(), " ", weight.sizes());
}

inline void check_group(std::int64_t group) {
  TORCH_CHECK(group == 0 || is_group_size(group), "trit: groups of ", group,
              " inputs share a weight scale, wanted a multiple of ", kGroupStep, ", or 0 for none");
}

/// Of a matrix without group scales: kernels that take none call it as well.
inline ScaleGranularity granularity_of(const torch::Tensor& scale, std::int64_t out_features) {
  TORCH_CHECK(scale.dim() == 1 && (scale.size(0) == 1 || scale.size(0) == out_features),
              "trit: the weight's scale must be [1] or [", out_features, "], found ", scale.sizes());
  return scale.size(0) == 1 ? ScaleGranularity::tensor : ScaleGranularity::row;
}

/// Of any matrix; `group` is the number of inputs of a group, or 0.
inline ScaleGranularity granularity_of(const torch::Tensor& scale, std::int64_t out_features,
                                       std::int64_t in_features, std::int64_t group) {
  if (group == 0) {
    return granularity_of(scale, out_features);
  }
  check_group(group);
  TORCH_CHECK(
      scale.dim() == 2 && scale.size(0) == out_features && scale.size(1) == groups_of(in_features, group),
      "trit: the weight's scale must be [", out_features, ", ", groups_of(in_features, group),
      "] for groups of ", group, " inputs, found ", scale.sizes());
  return ScaleGranularity::group;
}

inline void check_rms_norm_backward(const torch::Tensor& grad, const torch::Tensor& x,
                                    const torch::Tensor& rstd) {
  TORCH_CHECK(grad.sizes() == x.sizes() && x.dim() >= 1 && rstd.numel() * x.size(-1) == x.numel(),
              "trit::rms_norm_backward: grad ", grad.sizes(), ", x ", x.sizes(), " and rstd ", rstd.sizes(),
              " do not fit together");
}

inline void check_int8_backward(const torch::Tensor& grad, const torch::Tensor& q, const torch::Tensor& scale,
                                std::int64_t out_features, std::int64_t in_features) {
  TORCH_CHECK(grad.dim() == 2 && grad.size(1) == out_features && q.dim() == 2 &&
                  q.scalar_type() == torch::kChar && q.size(0) == grad.size(0) &&
                  q.size(1) == padded_in_features(in_features) && scale.numel() == q.size(0),
              "trit::linear_backward_int8: wanted grad [tokens, ", out_features, "], q int8 [tokens, ",
              padded_in_features(in_features), "], scale [tokens]; found ", grad.sizes(), ", ", q.toString(),
              " ", q.sizes(), ", ", scale.sizes());
  data_type(grad.scalar_type(), "grad");
}

inline void check_codes(const torch::Tensor& codes, std::int64_t in_features) {
  TORCH_CHECK(codes.dim() == 2 && codes.scalar_type() == torch::kByte && codes.size(0) >= 1 &&
                  in_features >= 1 && codes.size(1) == packed_row_bytes(in_features),
              "trit: codes must be uint8 [out_features, ceil(in_features / 4)] with in_features = ",
              in_features, ", found ", codes.toString(), " ", codes.sizes());
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
#include "torch/cuda/layer.h"

#include <algorithm>

#include "torch/cuda/kernels.h"
#include "torch/layer.h"

namespace trit::torch_layer::cuda {
namespace {

std::size_t group_scale_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group) {
  return group == 0 ? 0 : trit::cuda::group_scale_bytes(out_features, in_features, group, DataType::float32);
}

}  // namespace

std::size_t prepared_bytes(std::int64_t out_features, std::int64_t in_features, std::int64_t group) {
  return trit::cuda::weight_bytes(out_features, in_features) +
         group_scale_bytes(out_features, in_features, group);
}

void prepare(const TernaryView& stored, std::uint8_t* prepared, Stream stream) {
  const std::int64_t out_features = stored.out_features;
  const std::int64_t in_features = stored.in_features;
  trit::cuda::prepare_weights(stored.codes.data(), out_features, in_features, prepared, stream);
  if (stored.group != 0) {
    trit::cuda::prepare_group_scales(stored.scale.data(), out_features, in_features, stored.group,
                                     DataType::float32,
                                     prepared + trit::cuda::weight_bytes(out_features, in_features), stream);
  }
}

std::size_t packing_bytes(std::int64_t out_features, std::int64_t in_features, bool per_row,
                          std::int64_t group) {
  const bool row_sums = wanted_granularity(per_row, group) == ScaleGranularity::tensor;
  return prepared_bytes(out_features, in_features, group) +
         (row_sums ? static_cast<std::size_t>(out_features) * sizeof(float) : 0);
}

void pack(const Device& device, const PackLayer& args, Stream stream) {
  const ScaleGranularity granularity = wanted_granularity(args.per_row, args.group);
  // A multiple of 2048 bytes behind: group scales of the prepared weight, or the rows' sums.
  auto* const behind =
      reinterpret_cast<float*>(args.prepared + trit::cuda::weight_bytes(args.out_features, args.in_features));
  trit::cuda::pack_weights(device,
                           {.w = args.w,
                            .out_features = args.out_features,
                            .in_features = args.in_features,
                            .granularity = granularity,
                            .group = args.group,
                            .scale = args.scale,
                            .codes = args.codes,
                            .weights = args.prepared,
                            .group_scale = granularity == ScaleGranularity::group ? behind : nullptr,
                            .row_sums = granularity == ScaleGranularity::tensor ? behind : nullptr,
                            .counter = static_cast<std::int32_t*>(args.counter)},
                           stream);
}

void product(const Device& device, const LayerWeight& weight, const QuantizedRows& x, const float* bias,
             DataType y_type, void* y, void* workspace, bool programmatic, Stream stream) {
  trit::cuda::product(
      device,
      {.weights = weight.prepared,
       .out_features = weight.out_features,
       .in_features = weight.in_features,
       .q = x.q,
       .token_scale = x.scale,
       .tokens = x.tokens,
       .weight_scale = weight.scale,
       .granularity = weight.granularity,
       .bias = bias,
       .y_type = y_type,
       .y = y,
       .workspace = workspace,
       .programmatic = programmatic,
       .group = weight.group,
       .group_scale = weight.prepared + trit::cuda::weight_bytes(weight.out_features, weight.in_features)},
      stream);
}

trit::cuda::GradientInput gradient_input_arguments(const TernaryView& weight, const void* grad, DataType type,
                                                   std::int64_t tokens, void* grad_x) {
  return {.grad = grad,
          .type = type,
          .tokens = tokens,
          .out_features = weight.out_features,
          .in_features = weight.in_features,
          .scale = weight.granularity() == ScaleGranularity::row ? nullptr : weight.scale.data(),
          .grad_x = grad_x};
}

std::int64_t norm_backward_parts(trit::cuda::NormBackward args) {
  args.parts = trit::cuda::norm_backward_parts(args.tokens, args.in_features);
  return trit::cuda::norm_backward_fits(args) ? args.parts : std::clamp<std::int64_t>(args.tokens / 8, 1, 64);
}

void norm_backward(const Device& device, const trit::cuda::NormBackward& args, Stream stream) {
  trit::cuda::norm_backward_fits(args) ? trit::cuda::norm_backward(device, args, stream)
                                       : rms_norm_backward(args, stream);
}

}  // namespace trit::torch_layer::cuda

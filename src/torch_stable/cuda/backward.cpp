// SPDX-License-Identifier: MIT
//
// RMSNorm and the backward operators on a GPU: the kernels and decisions of src/torch/cuda, so the same bits.
#include <algorithm>
#include <tuple>

#include "torch/cuda/kernels.h"
#include "torch/cuda/layer.h"
#include "torch/weight_tile.h"
#include "torch_stable/cuda/launch.h"
#include "torch_stable/layer_backward.h"
#include "trit/cuda_backward.h"

namespace trit::torch_stable {
namespace {

using cuda::DeviceGuard;
namespace kernels = torch_layer::cuda;

// grad * scale, computed in float32 and rounded once to grad's type, in one pass.
Tensor scaled_gradient(const Tensor& grad, const Tensor& scale) {
  const Tensor scaled = empty(grad.sizes(), grad.scalar_type(), grad);
  return call("aten::mul", "out", grad, scale, scaled);
}

// dX from the 2-bit weights on compute capability 9.0; nothing where that kernel does not take the gradient.
optional<Tensor> input_from_codes(const Tensor& grad, const StoredWeight& stored) {
  const TernaryView& weight = stored.view;
  const trit::cuda::Device& device = cuda::device_of(grad);
  const bool per_row = weight.granularity() == ScaleGranularity::row;
  const Tensor rows = as_contiguous(per_row ? scaled_gradient(grad, stored.scale) : grad);
  Tensor grad_x = empty({grad.size(0), weight.in_features}, grad.scalar_type(), grad);
  auto args =
      kernels::gradient_input_arguments(weight, rows.const_data_ptr(), data_type(grad.scalar_type(), "grad"),
                                        grad.size(0), grad_x.mutable_data_ptr());
  if (!trit::cuda::gradient_input_fits(device, args)) {
    return std::nullopt;
  }
  const Tensor weights = empty({static_cast<std::int64_t>(trit::cuda::transposed_weight_bytes(
                                   weight.out_features, weight.in_features))},
                               ScalarType::Byte, grad);
  trit::cuda::prepare_transposed(weight.codes.data(), weight.out_features, weight.in_features,
                                 data<std::uint8_t>(weights), cuda::stream_of(grad));
  args.weights = const_data<std::uint8_t>(weights);
  trit::cuda::gradient_input(device, args, cuda::stream_of(grad));
  return grad_x;
}

// dX for every other type and GPU: tiles of the weight in grad's type, multiplied by LibTorch.
Tensor input_from_tiles(const Tensor& grad, const StoredWeight& stored) {
  TernaryView weight = stored.view;
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile; float16 does not hold every beta.
  const bool groups = weight.group != 0;
  const ScalarType type =
      groups && grad.scalar_type() == ScalarType::Half ? ScalarType::Float : grad.scalar_type();
  const Tensor scaled = groups ? as_type(grad, type) : scaled_gradient(grad, stored.scale);
  if (!groups) {
    weight.scale = {};
  }
  Tensor grad_x = empty({grad.size(0), weight.in_features}, type, grad);
  const std::int64_t width =
      torch_layer::tile_columns(weight.out_features, weight.in_features, kernels::kGradientTileWeights);
  for (std::int64_t first = 0; first < weight.in_features; first += width) {
    const std::int64_t columns = std::min(width, weight.in_features - first);
    const Tensor tile = empty({weight.out_features, columns}, type, grad);
    kernels::dequantize(weight, first, columns, data_type(type, "grad"), tile.mutable_data_ptr(),
                        cuda::stream_of(grad));
    cuda::multiply(scaled, tile, part_of(grad_x, grad.size(0), columns, 0, first));
  }
  return as_type(grad_x, grad.scalar_type());
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  check_gradient(grad, codes.size(0));
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  const DeviceGuard guard(grad.get_device_index());
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  const auto grad_x = group != 0 ? std::nullopt : input_from_codes(grad, stored);
  return grad_x ? *grad_x : input_from_tiles(grad, stored);
}

// s q in `dtype`, rounded once.
Tensor dequantize_tokens(const Tensor& q, const Tensor& scale, std::int64_t in_features, ScalarType dtype) {
  check_quantized(q, scale, trit::cuda::quantized_row_bytes(in_features));
  cuda::check_device(scale, "the token scale", q);
  const DeviceGuard guard(q.get_device_index());
  const Tensor codes = as_contiguous(q);
  const Tensor s = as_contiguous(scale);
  Tensor x = empty({q.size(0), in_features}, dtype, q);
  trit::cuda::dequantize_rows({.q = const_data<std::int8_t>(codes),
                               .row_bytes = codes.size(1),
                               .scale = floats(s),
                               .tokens = q.size(0),
                               .in_features = in_features,
                               .type = data_type(dtype, "x"),
                               .x = x.mutable_data_ptr()},
                              cuda::stream_of(q));
  return x;
}

// dW from s q in grad's type.
Tensor linear_backward_weight_float(const Tensor& grad, const Tensor& x, ScalarType dtype) {
  check_weight_gradient(grad, x);
  cuda::check_device(x, "x", grad);
  const DeviceGuard guard(grad.get_device_index());
  // A 16-bit product is written in float32 where the weight is: a copy would read and write 6 N K bytes.
  const bool wider = dtype == ScalarType::Float && grad.scalar_type() != ScalarType::Float;
  const Tensor grad_weight = empty({grad.size(1), x.size(1)}, wider ? dtype : grad.scalar_type(), grad);
  cuda::multiply(transposed(grad), x, grad_weight);
  return as_type(grad_weight, dtype);
}

// s belongs to what the product sums over, so it is part of an operand.
Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features, ScalarType dtype) {
  cuda::check_device(q, "q", grad);
  return linear_backward_weight_float(grad, dequantize_tokens(q, scale, in_features, grad.scalar_type()),
                                      dtype);
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const optional<Tensor>& weight, double eps) {
  check(x.dim() >= 1 && x.size(-1) >= 1, "rms_norm: x must be [..., features >= 1], found ", x);
  const std::int64_t features = x.size(-1);
  const DeviceGuard guard(x.get_device_index());
  const auto g = as_float(weight);
  check_vector(g, features, "rms_norm: the weight");
  if (g) {
    cuda::check_device(*g, "the norm's weight", x);
  }
  const Tensor rows = as_contiguous(x);
  Tensor y = empty(x.sizes(), x.scalar_type(), x);
  Tensor rstd = empty(Sizes(x.sizes().data(), x.sizes().size() - 1), ScalarType::Float, x);
  kernels::rms_norm({.x = rows.const_data_ptr(),
                     .type = data_type(x.scalar_type(), "x"),
                     .rows = rstd.numel(),
                     .features = features,
                     .weight = floats(g),
                     .eps = static_cast<float>(eps),
                     .y = y.mutable_data_ptr(),
                     .rstd = data<float>(rstd)},
                    cuda::stream_of(x));
  return {y, rstd};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, bool wants_x,
                                             bool wants_weight) {
  check_norm_backward(grad, x, rstd);
  cuda::check_device(grad, "grad", x);
  const DeviceGuard guard(x.get_device_index());
  // One type for both: float32 where they differ.
  const ScalarType type = grad.scalar_type() == x.scalar_type() ? x.scalar_type() : ScalarType::Float;
  const auto g = as_float(weight);
  check_vector(g, x.size(-1), "rms_norm_backward: the weight");
  wants_weight = wants_weight && g.has_value();
  if (!wants_x && !wants_weight) {
    return {no_gradient(x), no_gradient(weight ? *weight : x)};
  }
  const Tensor u = as_contiguous(as_type(grad, type));
  const Tensor values = as_contiguous(as_type(x, type));
  const Tensor r = as_float(rstd);
  const std::int64_t features = x.size(-1);
  trit::cuda::NormBackward args{
      u.const_data_ptr(), values.const_data_ptr(), data_type(type, "x"), r.numel(), features, floats(g),
      floats(r)};
  // The sums of the weight's gradient, one part after the other: their order depends on the shape alone.
  args.parts = kernels::norm_backward_parts(args);
  const Tensor grad_x = wants_x ? empty(x.sizes(), type, x) : no_gradient(x);
  Tensor grad_weight = !wants_weight     ? no_gradient(weight ? *weight : x)
                       : args.parts == 1 ? empty({features}, ScalarType::Float, x)
                                         : empty({args.parts, features}, ScalarType::Float, x);
  args.grad_x = wants_x ? grad_x.mutable_data_ptr() : nullptr;
  args.grad_norm_weight = wants_weight ? data<float>(grad_weight) : nullptr;
  kernels::norm_backward(cuda::device_of(x), args, cuda::stream_of(x));
  if (wants_weight) {
    const std::array<std::int64_t, 1> rows{0};
    // wants_weight says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    const ScalarType weight_type = weight->scalar_type();
    grad_weight = args.parts == 1 ? as_type(grad_weight, weight_type)
                                  : torch::stable::sum(grad_weight, rows, false, weight_type);
  }
  return {as_type(grad_x, x.scalar_type()), grad_weight};
}

constexpr auto* kLayerBackward =
    &layer_backward<&linear_backward_input, &linear_backward_weight, &rms_norm_backward>;
constexpr auto* kLayerBackwardInt8 =
    &layer_backward_int8<&linear_backward_int8_cuda, &linear_backward_weight, &rms_norm_backward>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CUDA, m) {
  m.impl("linear_backward_input", TORCH_BOX(&linear_backward_input));
  m.impl("linear_backward_weight", TORCH_BOX(&linear_backward_weight));
  m.impl("dequantize_tokens", TORCH_BOX(&dequantize_tokens));
  m.impl("linear_backward_weight_float", TORCH_BOX(&linear_backward_weight_float));
  m.impl("rms_norm", TORCH_BOX(&rms_norm));
  m.impl("rms_norm_backward", TORCH_BOX(&rms_norm_backward));
  m.impl("bit_linear_backward", TORCH_BOX(kLayerBackward));
  m.impl("bit_linear_backward_int8", TORCH_BOX(kLayerBackwardInt8));
}

}  // namespace trit::torch_stable

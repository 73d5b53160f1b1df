// SPDX-License-Identifier: MIT
//
// RMSNorm and the backward operators on a GPU: the kernels and decisions of src/torch/cuda, so the same bits.
#include <algorithm>
#include <tuple>

#include "torch/cuda/kernels.h"
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
optional<Tensor> input_from_codes(const Tensor& grad, const Tensor& codes, const Tensor& beta,
                                  std::int64_t in_features) {
  const trit::cuda::Device& device = cuda::device_of(grad);
  const std::int64_t out_features = codes.size(0);
  // Scales per row belong to what the product sums over, so they go into dY.
  const bool per_row = granularity_of(beta, out_features) == ScaleGranularity::row;
  const Tensor rows = as_contiguous(per_row ? scaled_gradient(grad, beta) : grad);
  Tensor grad_x = empty({grad.size(0), in_features}, grad.scalar_type(), grad);
  trit::cuda::GradientInput args{.grad = rows.const_data_ptr(),
                                 .type = data_type(grad.scalar_type(), "grad"),
                                 .tokens = grad.size(0),
                                 .out_features = out_features,
                                 .in_features = in_features,
                                 .scale = per_row ? nullptr : floats(beta),
                                 .grad_x = grad_x.mutable_data_ptr()};
  if (!trit::cuda::gradient_input_fits(device, args)) {
    return std::nullopt;
  }
  const Tensor weights =
      empty({static_cast<std::int64_t>(trit::cuda::transposed_weight_bytes(out_features, in_features))},
            ScalarType::Byte, grad);
  trit::cuda::prepare_transposed(const_data<std::uint8_t>(codes), out_features, in_features,
                                 data<std::uint8_t>(weights), cuda::stream_of(grad));
  args.weights = const_data<std::uint8_t>(weights);
  trit::cuda::gradient_input(device, args, cuda::stream_of(grad));
  return grad_x;
}

// dX for every other type and GPU: tiles of the weight in grad's type, multiplied by LibTorch.
Tensor input_from_tiles(const Tensor& grad, const Tensor& codes, const Tensor& beta, std::int64_t in_features,
                        std::int64_t group) {
  const std::int64_t out_features = codes.size(0);
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile; float16 does not hold every beta.
  const ScalarType type =
      group != 0 && grad.scalar_type() == ScalarType::Half ? ScalarType::Float : grad.scalar_type();
  const Tensor scaled = group == 0 ? scaled_gradient(grad, beta) : as_type(grad, type);
  Tensor grad_x = empty({grad.size(0), in_features}, type, grad);
  // Tiles of 2^24 weights: 32 MiB of half precision stay in the L2 of a large GPU, and no float copy of a
  // large weight exists. Multiples of 64 columns start at a byte of the codes and keep rows aligned.
  constexpr std::int64_t kTileWeights = std::int64_t{1} << 24;
  const std::int64_t max_columns = std::max<std::int64_t>(kTileWeights / out_features / 64 * 64, 64);
  for (std::int64_t first = 0; first < in_features; first += max_columns) {
    const std::int64_t columns = std::min(max_columns, in_features - first);
    const Tensor tile = empty({out_features, columns}, type, grad);
    kernels::dequantize({.codes = const_data<std::uint8_t>(codes),
                         .out_features = out_features,
                         .in_features = in_features,
                         .scale = group == 0 ? nullptr : floats(beta),
                         .per_row = false,
                         .first_column = first,
                         .columns = columns,
                         .w_type = data_type(type, "grad"),
                         .w = tile.mutable_data_ptr(),
                         .group = group},
                        cuda::stream_of(grad));
    call("aten::mm", "out", scaled, tile, torch::stable::narrow(grad_x, 1, first, columns));
  }
  return as_type(grad_x, grad.scalar_type());
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  check_codes(codes, in_features);
  check_gradient(grad, codes.size(0));
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor stored = as_contiguous(codes);
  const Tensor beta = as_float(weight_scale);
  granularity_of(beta, codes.size(0), in_features, group);
  const auto grad_x = group != 0 ? std::nullopt : input_from_codes(grad, stored, beta, in_features);
  return grad_x ? *grad_x : input_from_tiles(grad, stored, beta, in_features, group);
}

Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features, ScalarType dtype) {
  check(grad.dim() == 2 && grad.size(0) == q.size(0), "linear_backward_weight: grad is ", grad, " and q ", q,
        ", wanted as many rows in both");
  check_quantized(q, scale, trit::cuda::quantized_row_bytes(in_features));
  cuda::check_device(q, "q", grad);
  cuda::check_device(scale, "the token scale", grad);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor codes = as_contiguous(q);
  const Tensor s = as_contiguous(scale);
  // s belongs to what the product sums over, so it is part of an operand; s q in grad's type, rounded once.
  const Tensor x = empty({q.size(0), in_features}, grad.scalar_type(), grad);
  trit::cuda::dequantize_rows({.q = const_data<std::int8_t>(codes),
                               .row_bytes = codes.size(1),
                               .scale = floats(s),
                               .tokens = q.size(0),
                               .in_features = in_features,
                               .type = data_type(grad.scalar_type(), "grad"),
                               .x = x.mutable_data_ptr()},
                              cuda::stream_of(grad));
  // A 16-bit product is written in float32 where the weight is: a copy would read and write 6 N K bytes.
  const Tensor transposed = torch::stable::transpose(grad, 0, 1);
  return dtype == ScalarType::Float && grad.scalar_type() != ScalarType::Float
             ? call("aten::mm", "dtype", transposed, x, dtype)
             : as_type(call("aten::mm", "", transposed, x), dtype);
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

// The sums of the weight's gradient, one part after the other: their order depends on the shape alone.
struct NormGradients {
  optional<Tensor> x;        // if wanted
  optional<Tensor> partial;  // float32 [parts, features], if wanted; of one part [features]
};
void* pointer_or_null(const optional<Tensor>& tensor) { return cuda::pointer_or_null(tensor); }

NormGradients norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                            const optional<Tensor>& weight, bool wants_x, bool wants_weight) {
  const std::int64_t features = x.size(-1);
  const std::int64_t rows = rstd.numel();
  const DataType type = data_type(x.scalar_type(), "x");
  const auto make = [&](std::int64_t parts) -> NormGradients {
    return {wants_x ? optional(empty(x.sizes(), x.scalar_type(), x)) : std::nullopt,
            !wants_weight ? std::nullopt
            : parts == 1  ? optional(empty({features}, ScalarType::Float, x))
                          : optional(empty({parts, features}, ScalarType::Float, x))};
  };
  // In one pass over both, for 16-bit rows that its vectors fit.
  std::int64_t parts = trit::cuda::norm_backward_parts(rows);
  NormGradients gradients = make(parts);
  const trit::cuda::NormBackward args{
      .grad = grad.const_data_ptr(),
      .x = x.const_data_ptr(),
      .type = type,
      .tokens = rows,
      .in_features = features,
      .norm_weight = floats(weight),
      .rstd = floats(rstd),
      .grad_x = pointer_or_null(gradients.x),
      .grad_norm_weight = static_cast<float*>(pointer_or_null(gradients.partial)),
      .parts = parts};
  if (trit::cuda::norm_backward_fits(args)) {
    trit::cuda::norm_backward(args, cuda::stream_of(x));
    return gradients;
  }
  parts = std::clamp<std::int64_t>(rows / 8, 1, 64);
  gradients = make(parts);
  kernels::rms_norm_backward({.grad = grad.const_data_ptr(),
                              .x = x.const_data_ptr(),
                              .type = type,
                              .rows = rows,
                              .features = features,
                              .weight = floats(weight),
                              .rstd = floats(rstd),
                              .grad_x = pointer_or_null(gradients.x),
                              .grad_weight = static_cast<float*>(pointer_or_null(gradients.partial)),
                              .parts = parts},
                             cuda::stream_of(x));
  return gradients;
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
  const NormGradients gradients =
      norm_backward(as_contiguous(as_type(grad, type)), as_contiguous(as_type(x, type)), as_float(rstd), g,
                    wants_x, wants_weight);
  const auto grad_weight = [&]() -> Tensor {
    if (!gradients.partial) {
      return no_gradient(weight ? *weight : x);
    }
    const std::array<std::int64_t, 1> rows{0};
    // wants_weight says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    const ScalarType weight_type = weight->scalar_type();
    return gradients.partial->dim() == 1 ? as_type(*gradients.partial, weight_type)
                                         : torch::stable::sum(*gradients.partial, rows, false, weight_type);
  };
  return {gradients.x ? as_type(*gradients.x, x.scalar_type()) : no_gradient(x), grad_weight()};
}

constexpr auto* kLayerBackward =
    &layer_backward<&linear_backward_input, &linear_backward_weight, &rms_norm_backward>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CUDA, m) {
  m.impl("linear_backward_input", TORCH_BOX(&linear_backward_input));
  m.impl("linear_backward_weight", TORCH_BOX(&linear_backward_weight));
  m.impl("rms_norm", TORCH_BOX(&rms_norm));
  m.impl("rms_norm_backward", TORCH_BOX(&rms_norm_backward));
  m.impl("bit_linear_backward", TORCH_BOX(kLayerBackward));
}

}  // namespace trit::torch_stable

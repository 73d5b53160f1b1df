// SPDX-License-Identifier: MIT
//
// The backward of a layer's product on a GPU, and float weights from codes.
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "torch/arguments.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/layer.h"
#include "torch/cuda/prepared_weight.h"
#include "torch/layer.h"
#include "torch/ops.h"
#include "torch/weight_tile.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer {
namespace {

using c10::cuda::CUDAGuard;
using cuda::empty;
using torch::ScalarType;
using torch::Tensor;
using Packed = c10::intrusive_ptr<PackedWeight>;

// The view refers to contiguous `codes` and `beta`, float32.
TernaryView stored_view(const Tensor& codes, const Tensor& beta, std::int64_t in_features,
                        std::int64_t group) {
  granularity_of(beta, codes.size(0), in_features, group);
  return ternary_view(codes.size(0), in_features, codes.const_data_ptr<std::uint8_t>(),
                      beta.const_data_ptr<float>(), beta.numel(), group);
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, std::int64_t in_features, ScalarType dtype,
                  std::int64_t group) {
  check_codes(codes, in_features);
  cuda::check_device(scale, "the weight's scale", codes);
  const CUDAGuard guard(codes.device());
  const Tensor stored = codes.contiguous();
  const Tensor beta = float_of(scale);
  Tensor w = empty({codes.size(0), in_features}, torch::kFloat, codes);
  cuda::dequantize(stored_view(stored, beta, in_features, group), 0, in_features, DataType::float32,
                   w.mutable_data_ptr(), cuda::stream_of(codes));
  return w.to(dtype);
}

// grad * scale, computed in float32 and rounded once to grad's type, in one pass.
Tensor scaled_gradient(const Tensor& grad, const Tensor& scale) {
  Tensor scaled = at::empty(grad.sizes(), grad.options());
  return at::mul_out(scaled, grad, scale);
}

// dX from the 2-bit weights on compute capability 9.0; undefined where that kernel does not take the
// gradient. `transposed()` gives the weights in its layout.
template <typename Transposed>
Tensor backward_input_from_codes(const Tensor& grad, const TernaryView& weight, const Tensor& beta,
                                 const Transposed& transposed) {
  const trit::cuda::Device& device = cuda::device_of(grad);
  const bool per_row = weight.granularity() == ScaleGranularity::row;
  const Tensor rows = (per_row ? scaled_gradient(grad, beta) : grad).contiguous();
  Tensor grad_x = empty({grad.size(0), weight.in_features}, grad.scalar_type(), grad);
  auto args =
      cuda::gradient_input_arguments(weight, rows.const_data_ptr(), data_type(grad.scalar_type(), "grad"),
                                     grad.size(0), grad_x.mutable_data_ptr());
  if (!trit::cuda::gradient_input_fits(device, args)) {
    return {};
  }
  const Tensor weights = transposed();
  args.weights = weights.const_data_ptr<std::uint8_t>();
  trit::cuda::gradient_input(device, args, cuda::stream_of(grad));
  return grad_x;
}

// dX for every other type and GPU: tiles of the weight in grad's type, multiplied by LibTorch.
Tensor backward_input_from_tiles(const Tensor& grad, TernaryView weight, const Tensor& beta) {
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile; float16 does not hold every beta.
  const Tensor scaled = weight.group == 0                    ? scaled_gradient(grad, beta)
                        : grad.scalar_type() == torch::kHalf ? grad.to(torch::kFloat)
                                                             : grad;
  if (weight.group == 0) {
    weight.scale = {};
  }
  Tensor grad_x = at::empty({grad.size(0), weight.in_features}, scaled.options());
  const std::int64_t width =
      tile_columns(weight.out_features, weight.in_features, cuda::kGradientTileWeights);
  for (std::int64_t first = 0; first < weight.in_features; first += width) {
    const std::int64_t columns = std::min(width, weight.in_features - first);
    Tensor tile = at::empty({weight.out_features, columns}, scaled.options());
    cuda::dequantize(weight, first, columns, data_type(scaled.scalar_type(), "grad"), tile.mutable_data_ptr(),
                     cuda::stream_of(grad));
    Tensor target = grad_x.narrow(1, first, columns);
    at::mm_out(target, scaled, tile);
  }
  return grad_x.to(grad.scalar_type());
}

template <typename Transposed>
Tensor backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                      std::int64_t in_features, std::int64_t group, const Transposed& transposed) {
  const std::int64_t out_features = codes.size(0);
  TORCH_CHECK(grad.dim() == 2 && grad.size(1) == out_features,
              "trit::linear_backward_input: grad must be [tokens, ", out_features, "], found ", grad.sizes());
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  data_type(grad.scalar_type(), "grad");
  const CUDAGuard guard(grad.device());
  const Tensor beta = float_of(weight_scale);
  const TernaryView weight = stored_view(codes, beta, in_features, group);
  const Tensor grad_x = group != 0 ? Tensor() : backward_input_from_codes(grad, weight, beta, transposed);
  return grad_x.defined() ? grad_x : backward_input_from_tiles(grad, weight, beta);
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  check_codes(codes, in_features);
  const Tensor stored = codes.contiguous();
  return backward_input(grad, stored, weight_scale, in_features, group, [&] {
    return cuda::prepare_transposed(stored, in_features, cuda::GradientOperand::float16);
  });
}

// The transposed weights belong to the packed weight: a second backward through it does not prepare them
// again.
Tensor linear_backward_input_prepared(const Tensor& grad, const Packed& weight) {
  return backward_input(grad, weight->codes(), weight->scale(), weight->in_features(), weight->group(), [&] {
    return weight->cuda().transposed(weight->codes(), weight->in_features(), cuda::GradientOperand::float16);
  });
}

Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features, std::optional<ScalarType> dtype) {
  TORCH_CHECK(grad.dim() == 2 && q.dim() == 2 && grad.size(0) == q.size(0) && scale.numel() == q.size(0) &&
                  q.size(1) == padded_in_features(in_features) && q.scalar_type() == torch::kChar,
              "trit::linear_backward_weight: wanted grad [tokens, out_features], q int8 [tokens, ",
              padded_in_features(in_features), "], scale [tokens]; found ", grad.sizes(), ", ", q.toString(),
              " ", q.sizes(), ", ", scale.sizes());
  cuda::check_device(q, "q", grad);
  cuda::check_device(scale, "scale", grad);
  const CUDAGuard guard(grad.device());
  const Tensor codes = q.stride(1) == 1 && q.stride(0) >= in_features ? q : q.contiguous();
  const Tensor s = float_of(scale).contiguous();
  // s belongs to what the product sums over, so it is part of an operand; s q in grad's type, rounded once.
  Tensor x = empty({q.size(0), in_features}, grad.scalar_type(), grad);
  trit::cuda::dequantize_rows({.q = codes.const_data_ptr<std::int8_t>(),
                               .row_bytes = codes.stride(0),
                               .scale = s.const_data_ptr<float>(),
                               .tokens = q.size(0),
                               .in_features = in_features,
                               .type = data_type(grad.scalar_type(), "grad"),
                               .x = x.mutable_data_ptr()},
                              cuda::stream_of(grad));
  // A 16-bit product is written in float32 where the weight is: a copy would read and write 6 N K bytes.
  const ScalarType wanted = dtype.value_or(grad.scalar_type());
  return wanted == torch::kFloat && grad.scalar_type() != torch::kFloat ? at::mm(grad.t(), x, torch::kFloat)
                                                                        : at::mm(grad.t(), x).to(wanted);
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CUDA, m) {
  register_packed_weight_class();
  m.impl("dequantize", dequantize);
  m.impl("linear_backward_input", linear_backward_input);
  m.impl("linear_backward_input.prepared", linear_backward_input_prepared);
  m.impl("linear_backward_weight", linear_backward_weight);
}

}  // namespace trit::torch_layer

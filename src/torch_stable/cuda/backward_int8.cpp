// SPDX-License-Identifier: MIT
//
// The 8-bit backward on a GPU: the kernels and decisions of src/torch/cuda/backward_int8.cpp, so the same bits.
#include <algorithm>
#include <tuple>

#include "torch/cuda/gradient_int8.h"
#include "torch_stable/cuda/launch.h"
#include "torch_stable/layer_backward.h"
#include "trit/cuda_backward.h"

namespace trit::torch_stable {
namespace {

using cuda::DeviceGuard;
using torch_layer::cuda::GradientInt8;
using torch_layer::cuda::TokenRange;
namespace launches = torch_layer::cuda;

// Random numbers are read on the GPU, so a CUDA graph has its own at each replay.
trit::cuda::GpuGradientRounding rounding_of(const optional<Tensor>& rounding) {
  if (!rounding) {
    return {};
  }
  const auto* const words = const_data<std::int64_t>(*rounding);
  return {.stochastic = true, .seed_pointer = words, .offset_pointer = words + 1};
}

Tensor zeros(std::initializer_list<std::int64_t> sizes, ScalarType type, const Tensor& like) {
  return torch::stable::new_zeros(like, Sizes(sizes.begin(), sizes.size()), type);
}

Tensor zero_maxima(const Tensor& grad) { return zeros({grad.size(1)}, ScalarType::Int, grad); }

std::uint32_t* bits_of(const Tensor& maxima) {
  return reinterpret_cast<std::uint32_t*>(data<std::int32_t>(maxima));
}

// These tokens of dW, in `type`.
Tensor weight_gradient_part(const Tensor& grad, const GradientInt8& args, const TokenRange& tokens,
                            const Tensor& maxima, ScalarType type) {
  const trit::cuda::Device& device = cuda::device_of(grad);
  const launches::WeightOperands operands = launches::weight_operands(device, args, tokens.count);
  const Tensor grad_q = empty({operands.outputs, operands.row_bytes}, ScalarType::Char, grad);
  const Tensor scale = empty({args.out_features}, ScalarType::Float, grad);
  const Tensor activations =
      empty({operands.transposed_bytes / operands.row_bytes, operands.row_bytes}, ScalarType::Char, grad);
  const launches::WeightOperandsTo to{data<std::int8_t>(grad_q), data<float>(scale),
                                      data<std::int8_t>(activations)};
  launches::prepare_operands(args, tokens, operands.kernel, bits_of(maxima), to, cuda::stream_of(grad));
  if (!operands.kernel) {
    const Tensor sums = call("aten::_int_mm", "", grad_q, transposed(activations));
    return as_type(
        call("aten::mul", "Tensor", part_of(sums, args.out_features, args.in_features), as_column(scale)),
        type);
  }
  Tensor grad_weight = empty({args.out_features, args.in_features}, type, grad);
  launches::gradient_weight_int8(device, args, tokens.count, to, data_type(type, "the weight"),
                                 grad_weight.mutable_data_ptr(), cuda::stream_of(grad));
  return grad_weight;
}

// dW of more tokens than int32 sums hold is made in parts. Scales of the first part come from `maxima`.
Tensor weight_gradient(const Tensor& grad, const GradientInt8& args, const optional<Tensor>& maxima,
                       ScalarType type) {
  if (args.tokens == 0) {
    return zeros({args.out_features, args.in_features}, type, grad);
  }
  if (maxima) {
    return weight_gradient_part(grad, args, {0, args.tokens}, *maxima, type);
  }
  Tensor total;
  for (std::int64_t first = 0; first < args.tokens; first += kMaxGradientTokens) {
    const TokenRange tokens{first, std::min(kMaxGradientTokens, args.tokens - first)};
    const Tensor own = zero_maxima(grad);
    launches::quantize_rows(cuda::device_of(grad), args, tokens, nullptr, nullptr, bits_of(own),
                            cuda::stream_of(grad));
    const Tensor sum = weight_gradient_part(grad, args, tokens, own, ScalarType::Float);
    total = first == 0 ? sum : torch::stable::subtract(total, sum, -1.0);
  }
  return as_type(total, type);
}

// dX from quantised gradients.
Tensor input_gradient(const Tensor& grad, const GradientInt8& args, const StoredWeight& stored,
                      const Tensor& q, const Tensor& scale) {
  Tensor grad_x = empty({args.tokens, args.in_features}, grad.scalar_type(), grad);
  if (args.tokens == 0) {
    return grad_x;
  }
  const trit::cuda::Device& device = cuda::device_of(grad);
  const Tensor weights =
      empty({static_cast<std::int64_t>(trit::cuda::weight_bytes(args.in_features, args.out_features))},
            ScalarType::Byte, grad);
  trit::cuda::prepare_transposed_int8(stored.view.codes.data(), args.out_features, args.in_features,
                                      data<std::uint8_t>(weights), cuda::stream_of(grad));
  // Scales per row are a part of the gradients already.
  const Tensor beta = args.weight_scale == nullptr
                          ? stored.scale
                          : torch::stable::fill_(empty({1}, ScalarType::Float, grad), 1.0);
  const auto workspace = cuda::workspace(
      grad, trit::cuda::product_workspace_bytes(device, args.tokens, args.in_features, args.out_features));
  launches::gradient_input_int8(device, args, const_data<std::int8_t>(q), floats(scale),
                                const_data<std::uint8_t>(weights), floats(beta), grad_x.mutable_data_ptr(),
                                workspace.data, cuda::stream_of(grad));
  return grad_x;
}

}  // namespace

std::tuple<Tensor, Tensor> linear_backward_int8_cuda(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                     const Tensor& codes, const Tensor& weight_scale,
                                                     std::int64_t in_features, ScalarType weight_dtype,
                                                     bool wants_x, bool wants_weight,
                                                     const optional<Tensor>& rounding) {
  check_backward_int8(grad, q, scale, codes, rounding, in_features,
                      trit::cuda::quantized_row_bytes(in_features));
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  cuda::check_device(q, "q", grad);
  cuda::check_device(scale, "the token scale", grad);
  if (rounding) {
    cuda::check_device(*rounding, "rounding", grad);
  }
  const DeviceGuard guard(grad.get_device_index());
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, 0);
  const Tensor rows = as_contiguous(grad);
  const Tensor activations = as_contiguous(q);
  const Tensor s = as_float(scale);
  const GradientInt8 args{
      .grad = rows.const_data_ptr(),
      .type = data_type(grad.scalar_type(), "grad"),
      .tokens = grad.size(0),
      .out_features = codes.size(0),
      .in_features = in_features,
      .weight_scale = stored.view.granularity() == ScaleGranularity::row ? floats(stored.scale) : nullptr,
      .q = const_data<std::int8_t>(activations),
      .row_bytes = activations.size(1),
      .token_scale = floats(s),
      .rounding = rounding_of(rounding)};
  optional<Tensor> grad_q;
  optional<Tensor> grad_scale;
  optional<Tensor> maxima;
  if (wants_x) {
    grad_q = empty({args.tokens, trit::cuda::quantized_row_bytes(args.out_features)}, ScalarType::Char, grad);
    grad_scale = empty({args.tokens}, ScalarType::Float, grad);
  }
  if (wants_weight && args.tokens <= kMaxGradientTokens) {
    maxima = zero_maxima(grad);
  }
  // One pass over dY makes the codes of dX and the maxima of dW.
  if (wants_x || maxima) {
    launches::quantize_rows(cuda::device_of(grad), args, {0, args.tokens},
                            grad_q ? data<std::int8_t>(*grad_q) : nullptr,
                            grad_scale ? data<float>(*grad_scale) : nullptr,
                            maxima ? bits_of(*maxima) : nullptr, cuda::stream_of(grad));
  }
  return {wants_x ? input_gradient(rows, args, stored, *grad_q, *grad_scale) : no_gradient(grad),
          wants_weight ? weight_gradient(rows, args, maxima, weight_dtype) : no_gradient(grad)};
}

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CUDA, m) {
  m.impl("linear_backward_int8", TORCH_BOX(&linear_backward_int8_cuda));
}

}  // namespace trit::torch_stable

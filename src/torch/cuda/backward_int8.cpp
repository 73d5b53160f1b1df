// SPDX-License-Identifier: MIT
//
// The 8-bit backward on a GPU (trit/gradient.h). dX is the layer's own product, of gradients with the transposed
// weight, on every GPU. dW is a kernel on compute capability 9.0 and cuBLASLt's int8 GEMM elsewhere.
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/_int_mm.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "torch/arguments.h"
#include "torch/cuda/gradient_int8.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/prepared_weight.h"
#include "torch/ops.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer {
namespace {

using c10::cuda::CUDAGuard;
using cuda::empty;
using torch::ScalarType;
using torch::Tensor;
using trit::cuda::GpuGradientRounding;
using Packed = c10::intrusive_ptr<PackedWeight>;

// In a CUDA graph the generator's state is read at each replay.
GpuGradientRounding rounding_of(bool stochastic) {
  GpuGradientRounding rounding{.stochastic = stochastic};
  if (!stochastic) {
    return rounding;
  }
  auto* const generator = at::get_generator_or_default<at::CUDAGeneratorImpl>(
      std::nullopt, at::cuda::detail::getDefaultCUDAGenerator());
  const std::lock_guard lock(generator->mutex_);
  constexpr std::uint64_t kOffsets = 4;  // the generator's unit; two are used
  const at::PhiloxCudaState state = generator->philox_cuda_state(kOffsets);
  if (state.captured_) {
    rounding.seed_pointer = state.seed_.ptr;
    rounding.offset_pointer = state.offset_.ptr;
    rounding.offset = state.offset_intragraph_;
  } else {
    rounding.seed = state.seed_.val;
    rounding.offset = state.offset_.val;
  }
  return rounding;
}

struct Arguments {
  Tensor grad;  // contiguous [M, N]
  Tensor q;     // [M, ...], rows of stride(0)
  Tensor token_scale;
  Tensor weight_scale;
  ScalarType weight_dtype;
  cuda::GradientInt8 view;  // of these
};

std::uint32_t* bits_of(const Tensor& maxima) {
  return reinterpret_cast<std::uint32_t*>(maxima.mutable_data_ptr<std::int32_t>());
}

// These tokens of dW, in its own type.
Tensor weight_gradient_part(const Arguments& args, const cuda::TokenRange& tokens, const Tensor& maxima) {
  const trit::cuda::Device& device = cuda::device_of(args.grad);
  const auto stream = cuda::stream_of(args.grad);
  const std::int64_t outputs = args.view.out_features;
  const std::int64_t inputs = args.view.in_features;
  const cuda::WeightOperands operands = cuda::weight_operands(device, args.view, tokens.count);
  const Tensor grad_q = empty({operands.outputs, operands.row_bytes}, torch::kChar, args.grad);
  const Tensor scale = empty({outputs}, torch::kFloat, args.grad);
  const Tensor transposed = empty({operands.transposed_bytes}, torch::kChar, args.grad);
  const cuda::WeightOperandsTo to{grad_q.mutable_data_ptr<std::int8_t>(), scale.mutable_data_ptr<float>(),
                                  transposed.mutable_data_ptr<std::int8_t>()};
  cuda::prepare_operands(args.view, tokens, operands.kernel, bits_of(maxima), to, stream);
  if (!operands.kernel) {
    const Tensor sums = at::_int_mm(grad_q, transposed.view({operands.inputs, operands.row_bytes}).t());
    return sums.narrow(0, 0, outputs).narrow(1, 0, inputs).mul(scale.unsqueeze(1)).to(args.weight_dtype);
  }
  Tensor grad_weight = empty({outputs, inputs}, args.weight_dtype, args.grad);
  cuda::gradient_weight_int8(device, args.view, tokens.count, to, data_type(args.weight_dtype, "the weight"),
                             grad_weight.mutable_data_ptr(), stream);
  return grad_weight;
}

// The pass over dY of these tokens: codes for dX, maxima for dW, or one of them.
void quantize_rows(const Arguments& args, const cuda::TokenRange& tokens, const Tensor& q,
                   const Tensor& scale, const Tensor& maxima) {
  cuda::quantize_rows(cuda::device_of(args.grad), args.view, tokens,
                      q.defined() ? q.mutable_data_ptr<std::int8_t>() : nullptr,
                      scale.defined() ? scale.mutable_data_ptr<float>() : nullptr,
                      maxima.defined() ? bits_of(maxima) : nullptr, cuda::stream_of(args.grad));
}

Tensor zero_maxima(const Arguments& args) {
  return at::zeros({args.view.out_features}, args.grad.options().dtype(torch::kInt));
}

// dW of more tokens than int32 sums hold is made in parts. Scales of the first part come from `maxima`.
Tensor weight_gradient(const Arguments& args, const Tensor& maxima) {
  const std::int64_t tokens = args.view.tokens;
  if (tokens == 0) {
    return at::zeros({args.view.out_features, args.view.in_features},
                     args.grad.options().dtype(args.weight_dtype));
  }
  if (tokens <= kMaxGradientTokens) {
    return weight_gradient_part(args, {0, tokens}, maxima);
  }
  Arguments part = args;
  part.weight_dtype = torch::kFloat;
  Tensor total;
  for (std::int64_t first = 0; first < tokens; first += kMaxGradientTokens) {
    const cuda::TokenRange range{first, std::min(kMaxGradientTokens, tokens - first)};
    const Tensor own = zero_maxima(args);
    quantize_rows(args, range, {}, {}, own);
    const Tensor sum = weight_gradient_part(part, range, own);
    total = total.defined() ? total.add_(sum) : sum;
  }
  return total.to(args.weight_dtype);
}

// dX from quantised gradients.
Tensor input_gradient(const Arguments& args, const Tensor& q, const Tensor& scale, const Tensor& weights) {
  const trit::cuda::Device& device = cuda::device_of(args.grad);
  const cuda::GradientInt8& view = args.view;
  Tensor grad_x = empty({view.tokens, view.in_features}, args.grad.scalar_type(), args.grad);
  if (view.tokens == 0) {
    return grad_x;
  }
  // Scales per row are a part of the gradients already.
  const Tensor beta =
      args.weight_scale.size(0) == 1 ? args.weight_scale : at::ones({1}, args.weight_scale.options());
  const Tensor workspace = cuda::workspace(
      args.grad,
      trit::cuda::product_workspace_bytes(device, view.tokens, view.in_features, view.out_features));
  cuda::gradient_input_int8(
      device, view, q.const_data_ptr<std::int8_t>(), scale.const_data_ptr<float>(),
      weights.const_data_ptr<std::uint8_t>(), beta.const_data_ptr<float>(), grad_x.mutable_data_ptr(),
      workspace.defined() ? workspace.mutable_data_ptr() : nullptr, cuda::stream_of(args.grad));
  return grad_x;
}

template <typename Transposed>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                    const Tensor& codes, const Tensor& weight_scale, std::int64_t in_features,
                                    ScalarType weight_dtype, std::array<bool, 2> mask, bool stochastic,
                                    const Transposed& transposed) {
  const std::int64_t out_features = codes.size(0);
  check_int8_backward(grad, q, scale, out_features, in_features);
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  cuda::check_device(q, "q", grad);
  cuda::check_device(scale, "scale", grad);
  const CUDAGuard guard(grad.device());
  Arguments args{.grad = grad.contiguous(),
                 .q = q.stride(1) == 1 && q.stride(0) >= in_features ? q : q.contiguous(),
                 .token_scale = float_of(scale),
                 .weight_scale = float_of(weight_scale),
                 .weight_dtype = weight_dtype,
                 .view = {}};
  const bool per_row = granularity_of(args.weight_scale, out_features) == ScaleGranularity::row;
  args.view = {.grad = args.grad.const_data_ptr(),
               .type = data_type(grad.scalar_type(), "grad"),
               .tokens = grad.size(0),
               .out_features = out_features,
               .in_features = in_features,
               .weight_scale = per_row ? args.weight_scale.const_data_ptr<float>() : nullptr,
               .q = args.q.const_data_ptr<std::int8_t>(),
               .row_bytes = args.q.stride(0),
               .token_scale = args.token_scale.const_data_ptr<float>(),
               .rounding = rounding_of(stochastic)};
  const std::int64_t tokens = args.view.tokens;
  Tensor rows;
  Tensor row_scale;
  if (mask[0]) {
    rows = empty({tokens, trit::cuda::quantized_row_bytes(out_features)}, torch::kChar, grad);
    row_scale = empty({tokens}, torch::kFloat, grad);
  }
  const Tensor maxima = mask[1] && tokens <= kMaxGradientTokens ? zero_maxima(args) : Tensor();
  quantize_rows(args, {0, tokens}, rows, row_scale, maxima);
  std::tuple<Tensor, Tensor> result;
  if (mask[0]) {
    std::get<0>(result) = input_gradient(args, rows, row_scale, transposed());
  }
  if (mask[1]) {
    std::get<1>(result) = weight_gradient(args, maxima);
  }
  return result;
}

std::tuple<Tensor, Tensor> linear_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                const Tensor& codes, const Tensor& weight_scale,
                                                std::int64_t in_features, ScalarType weight_dtype,
                                                std::array<bool, 2> mask, bool stochastic) {
  check_codes(codes, in_features);
  return backward(grad, q, scale, codes, weight_scale, in_features, weight_dtype, mask, stochastic, [&] {
    return cuda::prepare_transposed(codes.contiguous(), in_features, cuda::GradientOperand::int8);
  });
}

std::tuple<Tensor, Tensor> linear_backward_int8_prepared(const Tensor& grad, const Tensor& q,
                                                         const Tensor& scale, const Packed& weight,
                                                         ScalarType weight_dtype, std::array<bool, 2> mask,
                                                         bool stochastic) {
  return backward(grad, q, scale, weight->codes(), weight->scale(), weight->in_features(), weight_dtype, mask,
                  stochastic, [&] {
                    return weight->cuda().transposed(weight->codes(), weight->in_features(),
                                                     cuda::GradientOperand::int8);
                  });
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CUDA, m) {
  register_packed_weight_class();
  m.impl("linear_backward_int8", linear_backward_int8);
  m.impl("linear_backward_int8.prepared", linear_backward_int8_prepared);
}

}  // namespace trit::torch_layer

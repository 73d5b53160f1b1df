// SPDX-License-Identifier: MIT
#include "torch/cuda/gradient_int8.h"

#include <algorithm>
#include <cstddef>

#include "torch/cuda/layer.h"

namespace trit::torch_layer::cuda {
namespace {

const void* grad_from(const GradientInt8& args, std::int64_t token) {
  const auto element = static_cast<std::int64_t>(size_of(args.type));
  return static_cast<const std::byte*>(args.grad) + token * args.out_features * element;
}

}  // namespace

void quantize_rows(const Device& device, const GradientInt8& args, const TokenRange& tokens, std::int8_t* q,
                   float* scale, std::uint32_t* maxima, Stream stream) {
  trit::cuda::quantize_gradient_rows(device,
                                     {.grad = grad_from(args, tokens.first),
                                      .type = args.type,
                                      .tokens = tokens.count,
                                      .out_features = args.out_features,
                                      .weight_scale = args.weight_scale,
                                      .rounding = args.rounding,
                                      .q = q,
                                      .scale = scale,
                                      .token_scale = args.token_scale + tokens.first,
                                      .maxima = maxima},
                                     stream);
}

void gradient_input_int8(const Device& device, const GradientInt8& args, const std::int8_t* q,
                         const float* scale, const std::uint8_t* weights, const float* beta, void* grad_x,
                         void* workspace, Stream stream) {
  product(device, {weights, args.in_features, args.out_features, beta, ScaleGranularity::tensor, /*group=*/0},
          {q, scale, nullptr, args.tokens}, /*bias=*/nullptr, args.type, grad_x, workspace,
          /*programmatic=*/false, stream);
}

WeightOperands weight_operands(const Device& device, const GradientInt8& args, std::int64_t tokens) {
  const bool kernel = trit::cuda::gradient_weight_fits(device);
  const auto rows = [&](std::int64_t wanted) {
    return kernel ? wanted : std::max<std::int64_t>((wanted + 7) / 8 * 8, 24);
  };
  WeightOperands operands{.kernel = kernel,
                          .outputs = rows(args.out_features),
                          .inputs = rows(args.in_features),
                          .row_bytes = trit::cuda::gradient_row_bytes(tokens),
                          .transposed_bytes = 0};
  operands.transposed_bytes =
      kernel ? static_cast<std::int64_t>(trit::cuda::transposed_activation_bytes(tokens, args.in_features))
             : operands.inputs * operands.row_bytes;
  return operands;
}

void prepare_operands(const GradientInt8& args, const TokenRange& tokens, bool kernel,
                      const std::uint32_t* maxima, const WeightOperandsTo& to, Stream stream) {
  trit::cuda::GpuGradientRounding rounding = args.rounding;
  rounding.offset += 1;
  trit::cuda::quantize_gradient_outputs({.grad = grad_from(args, tokens.first),
                                         .type = args.type,
                                         .tokens = tokens.count,
                                         .out_features = args.out_features,
                                         .token_scale = args.token_scale + tokens.first,
                                         .maxima = maxima,
                                         .rounding = rounding,
                                         .first_token = tokens.first,
                                         .q = to.grad,
                                         .scale = to.scale},
                                        stream);
  trit::cuda::transpose_activations({.q = args.q + tokens.first * args.row_bytes,
                                     .row_bytes = args.row_bytes,
                                     .tokens = tokens.count,
                                     .in_features = args.in_features,
                                     .tiles = kernel,
                                     .transposed = to.transposed},
                                    stream);
}

void gradient_weight_int8(const Device& device, const GradientInt8& args, std::int64_t tokens,
                          const WeightOperandsTo& operands, DataType type, void* grad_weight, Stream stream) {
  trit::cuda::gradient_weight(device,
                              {.grad = operands.grad,
                               .scale = operands.scale,
                               .tiles = operands.transposed,
                               .tokens = tokens,
                               .out_features = args.out_features,
                               .in_features = args.in_features,
                               .type = type,
                               .grad_weight = grad_weight},
                              stream);
}

}  // namespace trit::torch_layer::cuda

// SPDX-License-Identifier: MIT
//
// Calls of the operators that ops.cpp registers, through the dispatcher: autograd, autocast and the device's
// kernel apply. Shapes: M tokens, N = out_features, K = in_features.
#pragma once

#include <torch/torch.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

#include "torch/packed_weight.h"
#include "trit/torch.h"

namespace trit::torch_layer {

/// How the products of a layer's backward are computed.
struct BackwardKind {
  nn::Backward products = nn::Backward::exact;
  bool stochastic_rounding = false;
};
/// "exact", "int8_input", "int8_all": the operators' argument `backward`. Throws c10::Error for anything else.
std::string_view name_of(nn::Backward backward);
nn::Backward backward_of(std::string_view name);
/// Throws c10::Error for group scales with another backward than the exact one.
void check_backward(nn::Backward backward, std::int64_t group);

}  // namespace trit::torch_layer

namespace trit::torch_layer::ops {

struct NormQuantResult {
  torch::Tensor q;      // int8 [M, padded_in_features(K)]
  torch::Tensor scale;  // float32 [M], s
  torch::Tensor rstd;   // float32 [M], r
  torch::Tensor q_sum;  // int32 [M]
};
/// Activations x [M, K] to int8 (quantize.h, norm_quant_row).
NormQuantResult norm_quant(const torch::Tensor& x, const std::optional<torch::Tensor>& norm_weight, bool rms,
                           double eps);

// `group` is the number of inputs that share a weight scale, or 0 where there is one scale or one per row
// (per_row); group scales are [N, groups_of(K, group)].

/// beta of a float weight [N, K]: float32 [1], [N] per row, or group scales.
torch::Tensor absmean(const torch::Tensor& weight, bool per_row, std::int64_t group = 0);
/// weight [N, K] to the stored form, uint8 [N, ceil(K / 4)].
torch::Tensor ternarize_pack(const torch::Tensor& weight, const torch::Tensor& scale, std::int64_t group = 0);
/// t * scale, [N, K] of dtype.
torch::Tensor dequantize(const torch::Tensor& codes, const torch::Tensor& scale, c10::SymInt in_features,
                         torch::ScalarType dtype, std::int64_t group = 0);

/// y [M, N] of dtype = epilogue(q · tᵀ), from the stored form or from a prepared weight.
torch::Tensor packed_linear(const NormQuantResult& x, const torch::Tensor& codes,
                            const torch::Tensor& weight_scale, c10::SymInt in_features,
                            const std::optional<torch::Tensor>& bias, torch::ScalarType dtype,
                            std::int64_t group = 0);
torch::Tensor packed_linear(const NormQuantResult& x, const c10::intrusive_ptr<PackedWeight>& weight,
                            const std::optional<torch::Tensor>& bias, torch::ScalarType dtype);

/// dX [M, K] = grad [M, N] · (weight_scale t), in grad's dtype.
torch::Tensor linear_backward_input(const torch::Tensor& grad, const torch::Tensor& codes,
                                    const torch::Tensor& weight_scale, c10::SymInt in_features,
                                    std::int64_t group = 0);
/// The same from a packed weight, which keeps what the device's kernels prepare of it.
torch::Tensor linear_backward_input(const torch::Tensor& grad,
                                    const c10::intrusive_ptr<PackedWeight>& weight);
/// dW [N, K] = gradᵀ · (scale q), in `dtype`, or else in grad's.
torch::Tensor linear_backward_weight(const torch::Tensor& grad, const torch::Tensor& q,
                                     const torch::Tensor& scale, c10::SymInt in_features,
                                     std::optional<torch::ScalarType> dtype = std::nullopt);

/// Both in int8 (trit/gradient.h), as far as `mask` wants them: dX [M, K] in grad's dtype and dW [N, K] in
/// weight_dtype, else undefined. Not with group scales: they belong to what dX sums over and to its columns.
std::tuple<torch::Tensor, torch::Tensor> linear_backward_int8(
    const torch::Tensor& grad, const torch::Tensor& q, const torch::Tensor& scale, const torch::Tensor& codes,
    const torch::Tensor& weight_scale, c10::SymInt in_features, torch::ScalarType weight_dtype,
    std::array<bool, 2> mask, bool stochastic_rounding);
std::tuple<torch::Tensor, torch::Tensor> linear_backward_int8(
    const torch::Tensor& grad, const torch::Tensor& q, const torch::Tensor& scale,
    const c10::intrusive_ptr<PackedWeight>& weight, torch::ScalarType weight_dtype, std::array<bool, 2> mask,
    bool stochastic_rounding);

/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, and 1 / sqrt(...) for the backward.
std::tuple<torch::Tensor, torch::Tensor> rms_norm(const torch::Tensor& x,
                                                  const std::optional<torch::Tensor>& weight, double eps);
/// (grad_x, grad_weight); undefined where the mask says so.
std::tuple<torch::Tensor, torch::Tensor> rms_norm_backward(const torch::Tensor& grad, const torch::Tensor& x,
                                                           const torch::Tensor& rstd,
                                                           const std::optional<torch::Tensor>& weight,
                                                           std::array<bool, 2> mask);

struct BitLinearResult {
  torch::Tensor y;  // [..., N] of x's dtype
  torch::Tensor q;  // these as of norm_quant
  torch::Tensor scale;
  torch::Tensor rstd;
};
/// The forward pass with what its backward needs: norm_quant and packed_linear in one call.
BitLinearResult bit_linear_forward(const torch::Tensor& x, const c10::intrusive_ptr<PackedWeight>& packed,
                                   const std::optional<torch::Tensor>& bias,
                                   const std::optional<torch::Tensor>& norm_weight, bool rms, double eps);

struct BitLinearTrainResult : BitLinearResult {
  torch::Tensor codes;         // uint8 [N, ceil(K / 4)]
  torch::Tensor weight_scale;  // as of absmean
};
/// The same from a float weight, which is packed first.
BitLinearTrainResult bit_linear_train(const torch::Tensor& x, const torch::Tensor& weight,
                                      const std::optional<torch::Tensor>& bias,
                                      const std::optional<torch::Tensor>& norm_weight, bool rms, double eps,
                                      bool per_row, std::int64_t group = 0);

/// The whole layer, x [..., K] -> y [..., N], differentiable (straight-through).
torch::Tensor bit_linear(const torch::Tensor& x, const torch::Tensor& weight,
                         const std::optional<torch::Tensor>& bias,
                         const std::optional<torch::Tensor>& norm_weight, bool rms, double eps, bool per_row,
                         const BackwardKind& backward = {}, std::int64_t group = 0);
torch::Tensor bit_linear(const torch::Tensor& x, const torch::Tensor& weight,
                         const c10::intrusive_ptr<PackedWeight>& packed,
                         const std::optional<torch::Tensor>& bias,
                         const std::optional<torch::Tensor>& norm_weight, bool rms, double eps,
                         const BackwardKind& backward = {});

}  // namespace trit::torch_layer::ops

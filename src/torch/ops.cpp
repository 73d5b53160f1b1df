// SPDX-License-Identifier: MIT
//
// The operators: schemas, shapes (Meta), the composite layer, and typed calls. A device adds one file like
// cpu.cpp with TORCH_LIBRARY_IMPL(trit, <device>, m). trit::bit_linear is composed of the other operators.
#include "torch/ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "torch/arguments.h"
#include "trit/backend.h"

namespace trit::torch_layer {
namespace {

using c10::SymInt;
using std::optional;
using torch::ScalarType;
using torch::Tensor;
using Packed = c10::intrusive_ptr<PackedWeight>;

Tensor empty(const Tensor& like, c10::SymIntArrayRef sizes, ScalarType dtype) {
  return at::empty_symint(sizes, like.options().dtype(dtype));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_quant_meta(const Tensor& x, const optional<Tensor>&, bool,
                                                           double) {
  TORCH_CHECK(x.dim() == 2, "trit::norm_quant: x must be [tokens, in_features], found ", x.dim(),
              " dimensions");
  const SymInt tokens = x.sym_size(0);
  return {empty(x, {tokens, (x.sym_size(1) + 3) / 4 * 4}, torch::kChar), empty(x, {tokens}, torch::kFloat),
          empty(x, {tokens}, torch::kFloat), empty(x, {tokens}, torch::kInt)};
}

Tensor absmean_meta(const Tensor& weight, bool per_row, std::int64_t group) {
  check_group(group);
  if (group != 0) {
    return empty(weight, {weight.sym_size(0), (weight.sym_size(1) + (group - 1)) / group}, torch::kFloat);
  }
  return empty(weight, {per_row ? weight.sym_size(0) : SymInt(1)}, torch::kFloat);
}

Tensor ternarize_pack_meta(const Tensor& weight, const Tensor&, std::int64_t) {
  return empty(weight, {weight.sym_size(0), (weight.sym_size(1) + 3) / 4}, torch::kByte);
}

Tensor dequantize_meta(const Tensor& codes, const Tensor&, SymInt in_features, ScalarType dtype,
                       std::int64_t) {
  return empty(codes, {codes.sym_size(0), in_features}, dtype);
}

Tensor packed_linear_meta(const Tensor& q, const Tensor&, const Tensor&, const Tensor& codes, const Tensor&,
                          SymInt, const optional<Tensor>&, ScalarType dtype, std::int64_t) {
  return empty(q, {q.sym_size(0), codes.sym_size(0)}, dtype);
}

Tensor packed_linear_prepared_meta(const Tensor& q, const Tensor&, const Tensor&, const Packed& weight,
                                   const optional<Tensor>&, ScalarType dtype) {
  return empty(q, {q.sym_size(0), weight->out_features()}, dtype);
}

Tensor linear_backward_input_meta(const Tensor& grad, const Tensor&, const Tensor&, SymInt in_features,
                                  std::int64_t) {
  return empty(grad, {grad.sym_size(0), in_features}, grad.scalar_type());
}

Tensor linear_backward_weight_meta(const Tensor& grad, const Tensor&, const Tensor&, SymInt in_features,
                                   optional<ScalarType> dtype) {
  return empty(grad, {grad.sym_size(1), in_features}, dtype.value_or(grad.scalar_type()));
}

std::tuple<Tensor, Tensor> rms_norm_meta(const Tensor& x, const optional<Tensor>&, double) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          empty(x, x.sym_sizes().slice(0, static_cast<std::size_t>(x.dim() - 1)), torch::kFloat)};
}

std::tuple<Tensor, Tensor> rms_norm_backward_meta(const Tensor&, const Tensor& x, const Tensor&,
                                                  const optional<Tensor>& weight, std::array<bool, 2> mask) {
  return {mask[0] ? at::empty_symint(x.sym_sizes(), x.options()) : Tensor(),
          mask[1] && weight ? at::empty_symint(weight->sym_sizes(), weight->options()) : Tensor()};
}

void check_layer(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                 const optional<Tensor>& norm_weight) {
  TORCH_CHECK(weight.dim() == 2, "trit::bit_linear: the weight must be [out_features, in_features], found ",
              weight.sym_sizes());
  TORCH_CHECK(x.dim() >= 1 && x.sym_size(-1) == weight.sym_size(1), "trit::bit_linear: x must be [..., ",
              weight.sym_size(1), "], found ", x.sym_sizes());
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0)),
              "trit::bit_linear: the bias must be [", weight.sym_size(0), "], found ", bias->sym_sizes());
  TORCH_CHECK(!norm_weight || (norm_weight->dim() == 1 && norm_weight->sym_size(0) == weight.sym_size(1)),
              "trit::bit_linear: the norm's weight must be [", weight.sym_size(1), "], found ",
              norm_weight->sym_sizes());
}

Tensor output_of(const Tensor& x, const Tensor& y) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = y.sym_size(1);
  return y.reshape_symint(sizes);
}

Tensor rows_of(const Tensor& x) { return x.reshape_symint({-1, x.sym_size(-1)}); }

std::tuple<Tensor, Tensor, Tensor, Tensor> bit_linear_forward_composite(const Tensor& x, const Packed& packed,
                                                                        const optional<Tensor>& bias,
                                                                        const optional<Tensor>& norm_weight,
                                                                        bool rms, double eps) {
  auto quantized = ops::norm_quant(rows_of(x), norm_weight, rms, eps);
  Tensor y = output_of(x, ops::packed_linear(quantized, packed, bias, x.scalar_type()));
  return {std::move(y), std::move(quantized.q), std::move(quantized.scale), std::move(quantized.rstd)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> bit_linear_train_composite(
    const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
    bool rms, double eps, bool per_row, std::int64_t group) {
  Tensor weight_scale = ops::absmean(weight, per_row, group);
  Tensor codes = ops::ternarize_pack(weight, weight_scale, group);
  auto quantized = ops::norm_quant(rows_of(x), norm_weight, rms, eps);
  Tensor y = output_of(x, ops::packed_linear(quantized, codes, weight_scale, weight.sym_size(1), bias,
                                             x.scalar_type(), group));
  return {std::move(y),     std::move(quantized.q), std::move(quantized.scale), std::move(quantized.rstd),
          std::move(codes), std::move(weight_scale)};
}

Tensor linear_backward_input_composite(const Tensor& grad, const Packed& weight) {
  return ops::linear_backward_input(grad, weight->codes(), weight->scale(), weight->in_features(),
                                    weight->group());
}

std::tuple<Tensor, Tensor> linear_backward_int8_meta(const Tensor& grad, const Tensor&, const Tensor&,
                                                     const Tensor&, const Tensor&, SymInt in_features,
                                                     ScalarType weight_dtype, std::array<bool, 2> mask,
                                                     bool) {
  return {mask[0] ? empty(grad, {grad.sym_size(0), in_features}, grad.scalar_type()) : Tensor(),
          mask[1] ? empty(grad, {grad.sym_size(1), in_features}, weight_dtype) : Tensor()};
}

std::tuple<Tensor, Tensor> linear_backward_int8_composite(const Tensor& grad, const Tensor& q,
                                                          const Tensor& scale, const Packed& weight,
                                                          ScalarType weight_dtype, std::array<bool, 2> mask,
                                                          bool stochastic_rounding) {
  return ops::linear_backward_int8(grad, q, scale, weight->codes(), weight->scale(), weight->in_features(),
                                   weight_dtype, mask, stochastic_rounding);
}

// Without gradients the backward does not matter, beyond that it has a name.
Tensor bit_linear_composite(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                            const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row,
                            std::string_view backward, bool /*stochastic_rounding*/, std::int64_t group) {
  check_backward(backward_of(backward), group);
  check_layer(x, weight, bias, norm_weight);
  return std::get<0>(bit_linear_train_composite(x, weight, bias, norm_weight, rms, eps, per_row, group));
}

Tensor bit_linear_prepared_composite(const Tensor& x, const Tensor& weight, const Packed& packed,
                                     const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                     bool rms, double eps, std::string_view backward,
                                     bool /*stochastic_rounding*/) {
  check_backward(backward_of(backward), packed->group());
  check_layer(x, weight, bias, norm_weight);
  return std::get<0>(bit_linear_forward_composite(x, packed, bias, norm_weight, rms, eps));
}

}  // namespace

std::string_view name_of(nn::Backward backward) {
  switch (backward) {
    case nn::Backward::exact:
      return "exact";
    case nn::Backward::int8_input:
      return "int8_input";
    case nn::Backward::int8_all:
      return "int8_all";
  }
  TORCH_CHECK(false, "trit: backward is ", static_cast<int>(backward),
              ", wanted a value of trit::nn::Backward");
}

nn::Backward backward_of(std::string_view name) {
  for (const auto backward : {nn::Backward::exact, nn::Backward::int8_input, nn::Backward::int8_all}) {
    if (name == name_of(backward)) {
      return backward;
    }
  }
  TORCH_CHECK(false, "trit::bit_linear: backward is '", std::string(name),
              "', wanted 'exact', 'int8_input' or 'int8_all'");
}

void check_backward(nn::Backward backward, std::int64_t group) {
  TORCH_CHECK(group == 0 || backward == nn::Backward::exact, "trit::bit_linear: backward is '",
              std::string(name_of(backward)), "' with weight scales for groups of ", group,
              " inputs, wanted 'exact', or one scale per tensor or row");
}

TORCH_LIBRARY(trit, m) {
  register_packed_weight_class();
  m.def(
      "norm_quant(Tensor x, Tensor? norm_weight, bool rms, float eps) -> "
      "(Tensor q, Tensor scale, Tensor rstd, Tensor q_sum)");
  m.def("absmean(Tensor weight, bool per_row, int group=0) -> Tensor");
  m.def("ternarize_pack(Tensor weight, Tensor scale, int group=0) -> Tensor");
  m.def(
      "dequantize(Tensor codes, Tensor scale, SymInt in_features, ScalarType dtype, int group=0) -> Tensor");
  m.def(
      "packed_linear(Tensor q, Tensor scale, Tensor q_sum, Tensor codes, Tensor weight_scale, "
      "SymInt in_features, Tensor? bias, ScalarType dtype, int group=0) -> Tensor");
  m.def(
      "packed_linear.prepared(Tensor q, Tensor scale, Tensor q_sum, "
      "__torch__.torch.classes.trit.PackedWeight weight, Tensor? bias, ScalarType dtype) -> Tensor");
  m.def(
      "linear_backward_input(Tensor grad, Tensor codes, Tensor weight_scale, SymInt in_features, int "
      "group=0) "
      "-> Tensor");
  m.def(
      "linear_backward_input.prepared(Tensor grad, __torch__.torch.classes.trit.PackedWeight weight) -> "
      "Tensor");
  m.def(
      "linear_backward_weight(Tensor grad, Tensor q, Tensor scale, SymInt in_features, "
      "ScalarType? dtype=None) -> Tensor");
  m.def(
      "linear_backward_int8(Tensor grad, Tensor q, Tensor scale, Tensor codes, Tensor weight_scale, "
      "SymInt in_features, ScalarType weight_dtype, bool[2] mask, bool stochastic_rounding) -> "
      "(Tensor grad_x, Tensor grad_weight)");
  m.def(
      "linear_backward_int8.prepared(Tensor grad, Tensor q, Tensor scale, "
      "__torch__.torch.classes.trit.PackedWeight weight, ScalarType weight_dtype, bool[2] mask, "
      "bool stochastic_rounding) -> (Tensor grad_x, Tensor grad_weight)");
  m.def("rms_norm(Tensor x, Tensor? weight, float eps) -> (Tensor y, Tensor rstd)");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor x, Tensor rstd, Tensor? weight, bool[2] mask) -> (Tensor, "
      "Tensor)");
  m.def(
      "bit_linear_forward(Tensor x, __torch__.torch.classes.trit.PackedWeight packed, Tensor? bias, "
      "Tensor? norm_weight, bool rms, float eps) -> (Tensor y, Tensor q, Tensor scale, Tensor rstd)");
  m.def(
      "bit_linear_train(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, bool rms, float eps, "
      "bool per_row, int group=0) -> "
      "(Tensor y, Tensor q, Tensor scale, Tensor rstd, Tensor codes, Tensor weight_scale)");
  m.def(
      "bit_linear(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, bool rms, float eps, "
      "bool per_row, str backward='exact', bool stochastic_rounding=False, int group=0) -> Tensor");
  m.def(
      "bit_linear.prepared(Tensor x, Tensor weight, __torch__.torch.classes.trit.PackedWeight packed, "
      "Tensor? bias, Tensor? norm_weight, bool rms, float eps, str backward='exact', "
      "bool stochastic_rounding=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(trit, Meta, m) {
  register_packed_weight_class();
  m.impl("norm_quant", norm_quant_meta);
  m.impl("absmean", absmean_meta);
  m.impl("ternarize_pack", ternarize_pack_meta);
  m.impl("dequantize", dequantize_meta);
  m.impl("packed_linear", packed_linear_meta);
  m.impl("packed_linear.prepared", packed_linear_prepared_meta);
  m.impl("linear_backward_input", linear_backward_input_meta);
  m.impl("linear_backward_weight", linear_backward_weight_meta);
  m.impl("linear_backward_int8", linear_backward_int8_meta);
  m.impl("rms_norm", rms_norm_meta);
  m.impl("rms_norm_backward", rms_norm_backward_meta);
}

TORCH_LIBRARY_IMPL(trit, CompositeExplicitAutograd, m) {
  register_packed_weight_class();
  m.impl("bit_linear_forward", bit_linear_forward_composite);
  m.impl("bit_linear_train", bit_linear_train_composite);
  m.impl("linear_backward_input.prepared", linear_backward_input_composite);
  m.impl("linear_backward_int8.prepared", linear_backward_int8_composite);
  m.impl("bit_linear", bit_linear_composite);
  m.impl("bit_linear.prepared", bit_linear_prepared_composite);
}

namespace ops {
namespace {

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

}  // namespace

NormQuantResult norm_quant(const Tensor& x, const optional<Tensor>& norm_weight, bool rms, double eps) {
  static const auto op = find<decltype(norm_quant_meta)>("trit::norm_quant");
  auto [q, scale, rstd, q_sum] = op.call(x, norm_weight, rms, eps);
  return {std::move(q), std::move(scale), std::move(rstd), std::move(q_sum)};
}

Tensor absmean(const Tensor& weight, bool per_row, std::int64_t group) {
  static const auto op = find<decltype(absmean_meta)>("trit::absmean");
  return op.call(weight, per_row, group);
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale, std::int64_t group) {
  static const auto op = find<decltype(ternarize_pack_meta)>("trit::ternarize_pack");
  return op.call(weight, scale, group);
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, SymInt in_features, ScalarType dtype,
                  std::int64_t group) {
  static const auto op = find<decltype(dequantize_meta)>("trit::dequantize");
  return op.call(codes, scale, std::move(in_features), dtype, group);
}

Tensor packed_linear(const NormQuantResult& x, const Tensor& codes, const Tensor& weight_scale,
                     SymInt in_features, const optional<Tensor>& bias, ScalarType dtype, std::int64_t group) {
  static const auto op = find<decltype(packed_linear_meta)>("trit::packed_linear");
  return op.call(x.q, x.scale, x.q_sum, codes, weight_scale, std::move(in_features), bias, dtype, group);
}

Tensor packed_linear(const NormQuantResult& x, const Packed& weight, const optional<Tensor>& bias,
                     ScalarType dtype) {
  static const auto op = find<decltype(packed_linear_prepared_meta)>("trit::packed_linear", "prepared");
  return op.call(x.q, x.scale, x.q_sum, weight, bias, dtype);
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             SymInt in_features, std::int64_t group) {
  static const auto op = find<decltype(linear_backward_input_meta)>("trit::linear_backward_input");
  return op.call(grad, codes, weight_scale, std::move(in_features), group);
}

Tensor linear_backward_input(const Tensor& grad, const Packed& weight) {
  static const auto op =
      find<decltype(linear_backward_input_composite)>("trit::linear_backward_input", "prepared");
  return op.call(grad, weight);
}

Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale, SymInt in_features,
                              optional<ScalarType> dtype) {
  static const auto op = find<decltype(linear_backward_weight_meta)>("trit::linear_backward_weight");
  return op.call(grad, q, scale, std::move(in_features), dtype);
}

std::tuple<Tensor, Tensor> linear_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                const Tensor& codes, const Tensor& weight_scale,
                                                SymInt in_features, ScalarType weight_dtype,
                                                std::array<bool, 2> mask, bool stochastic_rounding) {
  static const auto op = find<decltype(linear_backward_int8_meta)>("trit::linear_backward_int8");
  return op.call(grad, q, scale, codes, weight_scale, std::move(in_features), weight_dtype, mask,
                 stochastic_rounding);
}

std::tuple<Tensor, Tensor> linear_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                const Packed& weight, ScalarType weight_dtype,
                                                std::array<bool, 2> mask, bool stochastic_rounding) {
  static const auto op =
      find<decltype(linear_backward_int8_composite)>("trit::linear_backward_int8", "prepared");
  return op.call(grad, q, scale, weight, weight_dtype, mask, stochastic_rounding);
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const optional<Tensor>& weight, double eps) {
  static const auto op = find<decltype(rms_norm_meta)>("trit::rms_norm");
  return op.call(x, weight, eps);
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, std::array<bool, 2> mask) {
  static const auto op = find<decltype(rms_norm_backward_meta)>("trit::rms_norm_backward");
  return op.call(grad, x, rstd, weight, mask);
}

BitLinearResult bit_linear_forward(const Tensor& x, const Packed& packed, const optional<Tensor>& bias,
                                   const optional<Tensor>& norm_weight, bool rms, double eps) {
  static const auto op = find<decltype(bit_linear_forward_composite)>("trit::bit_linear_forward");
  auto [y, q, scale, rstd] = op.call(x, packed, bias, norm_weight, rms, eps);
  return {std::move(y), std::move(q), std::move(scale), std::move(rstd)};
}

BitLinearTrainResult bit_linear_train(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                                      const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row,
                                      std::int64_t group) {
  static const auto op = find<decltype(bit_linear_train_composite)>("trit::bit_linear_train");
  auto [y, q, scale, rstd, codes, weight_scale] =
      op.call(x, weight, bias, norm_weight, rms, eps, per_row, group);
  return {{std::move(y), std::move(q), std::move(scale), std::move(rstd)},
          std::move(codes),
          std::move(weight_scale)};
}

Tensor bit_linear(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                  const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row,
                  const BackwardKind& backward, std::int64_t group) {
  static const auto op = find<decltype(bit_linear_composite)>("trit::bit_linear");
  return op.call(x, weight, bias, norm_weight, rms, eps, per_row, name_of(backward.products),
                 backward.stochastic_rounding, group);
}

Tensor bit_linear(const Tensor& x, const Tensor& weight, const Packed& packed, const optional<Tensor>& bias,
                  const optional<Tensor>& norm_weight, bool rms, double eps, const BackwardKind& backward) {
  static const auto op = find<decltype(bit_linear_prepared_composite)>("trit::bit_linear", "prepared");
  return op.call(x, weight, packed, bias, norm_weight, rms, eps, name_of(backward.products),
                 backward.stochastic_rounding);
}

}  // namespace ops
}  // namespace trit::torch_layer

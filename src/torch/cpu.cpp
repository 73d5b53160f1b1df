// SPDX-License-Identifier: MIT
//
// The operators on the CPU: each checks its tensors and calls one function of linear.h or row_kernels.h.
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>

#include "torch/arguments.h"
#include "torch/layer.h"
#include "torch/new_pages.h"
#include "torch/norm_rows.h"
#include "torch/ops.h"
#include "torch/parallel.h"
#include "torch/weight_tile.h"

namespace trit::torch_layer {
namespace {

using std::optional;
using torch::ScalarType;
using torch::Tensor;
using Packed = c10::intrusive_ptr<PackedWeight>;

const CpuKernels& kernels() { return cpu_kernels_for(Backend::automatic); }

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_quant(const Tensor& x, const optional<Tensor>& norm_weight,
                                                      bool rms, double eps) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) >= 1,
              "trit::norm_quant: x must be [tokens, in_features >= 1], found ", x.sizes());
  const DataType type = data_type(x.scalar_type(), "x");
  const std::int64_t tokens = x.size(0);
  const std::int64_t in_features = x.size(1);
  // Rows side by side or further apart; anything else (transposed, expanded) is copied.
  const bool strided = x.stride(1) == 1 && x.stride(0) >= in_features;
  const Tensor rows = strided ? x : x.contiguous();
  const auto weight = rms ? float_of(norm_weight) : std::nullopt;
  TORCH_CHECK(!weight || weight->numel() == in_features, "trit::norm_quant: the norm's weight must be [",
              in_features, "], found ", weight->sizes());
  Tensor q = at::empty({tokens, padded_in_features(in_features)}, x.options().dtype(torch::kChar));
  Tensor scale = at::empty({tokens}, x.options().dtype(torch::kFloat));
  Tensor rstd = at::empty_like(scale);
  Tensor q_sum = at::empty({tokens}, x.options().dtype(torch::kInt));
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  auto args = norm_quant_arguments<NormQuant>(
      {rows.const_data_ptr(), type, tokens, in_features, rows.stride(0)}, {rms, pointer_or_null(weight), eps},
      q.mutable_data_ptr<std::int8_t>(), scale.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>());
  args.q_sum = q_sum.mutable_data_ptr<std::int32_t>();
  trit::norm_quant(kernels(), parallel, args);
  return {q, scale, rstd, q_sum};
}

Tensor absmean(const Tensor& weight, bool per_row, std::int64_t group) {
  check_weight(weight);
  check_group(group);
  const Tensor w = float_of(weight);
  Tensor scale = at::empty(scale_shape(w.size(0), w.size(1), per_row, group), w.options());
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::absmean(kernels(), parallel, w.const_data_ptr<float>(), w.size(0), w.size(1),
                wanted_granularity(per_row, group), scale.mutable_data_ptr<float>(), group);
  return scale;
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale, std::int64_t group) {
  check_weight(weight);
  const Tensor w = float_of(weight);
  const Tensor beta = float_of(scale);
  Tensor codes = at::empty({w.size(0), packed_row_bytes(w.size(1))}, w.options().dtype(torch::kByte));
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::ternarize_pack(kernels(), parallel, w.const_data_ptr<float>(), w.size(0), w.size(1),
                       granularity_of(beta, w.size(0), w.size(1), group), beta.const_data_ptr<float>(),
                       codes.mutable_data_ptr<std::uint8_t>(), group);
  return codes;
}

// The stored form as contiguous tensors; the view refers to them.
struct StoredWeight {
  Tensor codes;
  Tensor scale;
  TernaryView view;
};

StoredWeight stored_weight(const Tensor& codes, const Tensor& scale, std::int64_t in_features,
                           std::int64_t group) {
  check_codes(codes, in_features);
  StoredWeight stored{codes.contiguous(), float_of(scale), {}};
  granularity_of(stored.scale, codes.size(0), in_features, group);
  stored.view = ternary_view(codes.size(0), in_features, stored.codes.const_data_ptr<std::uint8_t>(),
                             stored.scale.const_data_ptr<float>(), scale.numel(), group);
  return stored;
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, std::int64_t in_features, ScalarType dtype,
                  std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, scale, in_features, group);
  Tensor w = at::empty({codes.size(0), in_features}, stored.scale.options());
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::dequantize(kernels(), parallel, stored.view, w.mutable_data_ptr<float>());
  return w.to(dtype);
}

Tensor product(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const PackedLinear& weight,
               const optional<Tensor>& bias, ScalarType dtype) {
  const std::int64_t tokens = q.size(0);
  TORCH_CHECK(q.dim() == 2 && q.scalar_type() == torch::kChar &&
                  q.size(1) == padded_in_features(weight.in_features()) &&
                  scale.scalar_type() == torch::kFloat && scale.numel() == tokens &&
                  q_sum.scalar_type() == torch::kInt && q_sum.numel() == tokens,
              "trit::packed_linear: wanted q int8 [tokens, ", padded_in_features(weight.in_features()),
              "], scale float32 [tokens], q_sum int32 [tokens]; found ", q.toString(), " ", q.sizes(), ", ",
              scale.toString(), " ", scale.sizes(), ", ", q_sum.toString(), " ", q_sum.sizes());
  const auto offset = float_of(bias);
  TORCH_CHECK(!offset || offset->numel() == weight.out_features(), "trit::packed_linear: the bias must be [",
              weight.out_features(), "], found ", offset->sizes());
  const DataType type = data_type(dtype, "y");
  const Tensor codes = q.contiguous();
  const Tensor scales = scale.contiguous();
  const Tensor sums = q_sum.contiguous();
  Tensor y = at::empty({tokens, weight.out_features()}, q.options().dtype(dtype));
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  weight.product(parallel,
                 {codes.const_data_ptr<std::int8_t>(), scales.const_data_ptr<float>(),
                  sums.const_data_ptr<std::int32_t>(), tokens},
                 pointer_or_null(offset), type, y.mutable_data_ptr());
  return y;
}

Tensor packed_linear(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Tensor& codes,
                     const Tensor& weight_scale, std::int64_t in_features, const optional<Tensor>& bias,
                     ScalarType dtype, std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  TorchParallel parallel;
  return product(q, scale, q_sum, PackedLinear(kernels(), parallel, stored.view, PanelFormat::two_bit), bias,
                 dtype);
}

Tensor packed_linear_prepared(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Packed& weight,
                              const optional<Tensor>& bias, ScalarType dtype) {
  return product(q, scale, q_sum, weight->cpu(), bias, dtype);
}

// The type of the float products of backward. CPUs have no fast float16 GEMM, and float32 is more accurate.
ScalarType product_type(ScalarType grad) {
  return grad == torch::kBFloat16 ? torch::kBFloat16 : torch::kFloat;
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  const std::int64_t out_features = stored.view.out_features;
  TORCH_CHECK(grad.dim() == 2 && grad.size(1) == out_features,
              "trit::linear_backward_input: grad must be [tokens, ", out_features, "], found ", grad.sizes());
  const ScalarType type = product_type(grad.scalar_type());
  if (group == 0 && type == torch::kFloat && has_float_products(kernels())) {
    const Tensor rows = float_of(grad);
    Tensor grad_x = at::empty({grad.size(0), in_features}, rows.options());
    TorchParallel parallel;
    gradient_input(kernels(), parallel,
                   {.grad = rows.const_data_ptr<float>(),
                    .tokens = grad.size(0),
                    .weight = stored.view,
                    .grad_x = grad_x.mutable_data_ptr<float>()});
    return grad_x.to(grad.scalar_type());
  }
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile.
  const Tensor scaled = group != 0 ? grad.to(type) : (grad.to(torch::kFloat) * stored.scale).to(type);
  Tensor grad_x = at::empty({grad.size(0), in_features}, scaled.options());
  const std::int64_t columns = tile_columns(out_features, in_features);
  Tensor tile = at::empty({out_features, columns}, scaled.options());
  void* const tile_data = tile.mutable_data_ptr();
  for (std::int64_t first = 0; first < in_features; first += columns) {
    const std::int64_t width = std::min(columns, in_features - first);
    unpack_tile(TorchParallel(), kernels(), stored.view, first, width, data_type(type, "grad"), tile_data,
                columns);
    Tensor target = grad_x.narrow(1, first, width);
    at::mm_out(target, scaled, tile.narrow(1, 0, width));
  }
  return grad_x.to(grad.scalar_type());
}

Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features, optional<ScalarType> dtype) {
  TORCH_CHECK(grad.dim() == 2 && q.dim() == 2 && grad.size(0) == q.size(0) && scale.numel() == q.size(0) &&
                  q.size(1) == padded_in_features(in_features),
              "trit::linear_backward_weight: wanted grad [tokens, out_features], q [tokens, ",
              padded_in_features(in_features), "], scale [tokens]; found ", grad.sizes(), ", ", q.sizes(),
              ", ", scale.sizes());
  const ScalarType type = product_type(grad.scalar_type());
  if (type == torch::kFloat && has_float_products(kernels())) {
    const Tensor rows = float_of(grad);
    const Tensor codes = q.contiguous();
    const Tensor s = float_of(scale);
    Tensor grad_weight = at::empty({grad.size(1), in_features}, rows.options());
    TorchParallel parallel;
    take_new_pages(parallel, grad_weight.mutable_data_ptr(), static_cast<std::int64_t>(grad_weight.nbytes()));
    gradient_weight(kernels(), parallel,
                    {.grad = rows.const_data_ptr<float>(),
                     .q = codes.const_data_ptr<std::int8_t>(),
                     .scale = s.const_data_ptr<float>(),
                     .tokens = grad.size(0),
                     .out_features = grad.size(1),
                     .in_features = in_features,
                     .grad_weight = grad_weight.mutable_data_ptr<float>()});
    return grad_weight.to(dtype.value_or(grad.scalar_type()));
  }
  const Tensor scaled = (grad.to(torch::kFloat) * scale.reshape({-1, 1})).to(type);
  return at::mm(scaled.t(), q.narrow(1, 0, in_features).to(type)).to(dtype.value_or(grad.scalar_type()));
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const optional<Tensor>& weight, double eps) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, "trit::rms_norm: x must be [..., features >= 1], found ",
              x.sizes());
  data_type(x.scalar_type(), "x");
  const std::int64_t features = x.size(-1);
  TORCH_CHECK(!weight || weight->numel() == features, "trit::rms_norm: the weight must be [", features,
              "], found ", weight->sizes());
  const Tensor rows = float_of(x);
  const auto g = float_of(weight);
  Tensor y = at::empty_like(rows);
  Tensor rstd = at::empty(x.sizes().slice(0, static_cast<std::size_t>(x.dim() - 1)), rows.options());
  rms_norm_rows(TorchParallel(), rows.const_data_ptr<float>(), pointer_or_null(g), eps, rstd.numel(),
                features, y.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>());
  return {y.to(x.scalar_type()), rstd};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, std::array<bool, 2> mask) {
  check_rms_norm_backward(grad, x, rstd);
  const Tensor u = float_of(grad);
  const Tensor values = float_of(x);
  const Tensor r = float_of(rstd);
  const auto g = float_of(weight);
  const bool weight_wanted = mask[1] && g.has_value();
  Tensor grad_x = mask[0] ? at::empty_like(values) : Tensor();
  Tensor grad_weight = weight_wanted ? at::empty({x.size(-1)}, u.options()) : Tensor();
  rms_norm_backward_rows(TorchParallel(), {u.const_data_ptr<float>(), values.const_data_ptr<float>(),
                                           pointer_or_null(g), r.const_data_ptr<float>(), r.numel(),
                                           x.size(-1), mask[0] ? grad_x.mutable_data_ptr<float>() : nullptr,
                                           weight_wanted ? grad_weight.mutable_data_ptr<float>() : nullptr});
  if (weight_wanted) {
    // it says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    grad_weight = grad_weight.to(weight->scalar_type());
  }
  return {mask[0] ? grad_x.to(x.scalar_type()) : grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CPU, m) {
  register_packed_weight_class();
  m.impl("norm_quant", norm_quant);
  m.impl("absmean", absmean);
  m.impl("ternarize_pack", ternarize_pack);
  m.impl("dequantize", dequantize);
  m.impl("packed_linear", packed_linear);
  m.impl("packed_linear.prepared", packed_linear_prepared);
  m.impl("linear_backward_input", linear_backward_input);
  m.impl("linear_backward_weight", linear_backward_weight);
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
}

}  // namespace trit::torch_layer

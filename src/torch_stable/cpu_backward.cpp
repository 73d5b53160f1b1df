// SPDX-License-Identifier: MIT
//
// RMSNorm and the backward operators on the CPU: the arithmetic of src/torch/cpu.cpp, so the same bits.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <algorithm>
#include <tuple>

#include "torch/new_pages.h"
#include "torch/norm_rows.h"
#include "torch/weight_tile.h"
#include "torch_stable/layer_backward.h"
#include "trit/linear.h"

namespace trit::torch_stable {
namespace {

// The type of the float products of backward. CPUs have no fast float16 GEMM, and float32 is more accurate.
ScalarType product_type(ScalarType grad) {
  return grad == ScalarType::BFloat16 ? ScalarType::BFloat16 : ScalarType::Float;
}

// to = a · b by LibTorch, without its dispatcher: that costs the host 2 us.
void multiply(const Tensor& a, const Tensor& b, const Tensor& to) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(to.get(), a.get(), b.get()));
}

// grad * scale, computed in float32 and rounded once to `type`.
Tensor scaled_gradient(const Tensor& grad, const Tensor& scale, ScalarType type) {
  return as_type(call("aten::mul", "Tensor", as_type(grad, ScalarType::Float), scale), type);
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  const std::int64_t out_features = codes.size(0);
  check_gradient(grad, out_features);
  const ScalarType type = product_type(grad.scalar_type());
  const CpuKernels& table = cpu_kernels_for(Backend::automatic);
  if (group == 0 && type == ScalarType::Float && has_float_products(table)) {
    const Tensor rows = as_float(grad);
    Tensor grad_x = empty({grad.size(0), in_features}, type, grad);
    TorchParallel parallel;
    gradient_input(
        table, parallel,
        {.grad = floats(rows), .tokens = grad.size(0), .weight = stored.view, .grad_x = data<float>(grad_x)});
    return as_type(grad_x, grad.scalar_type());
  }
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile.
  const Tensor scaled =
      group != 0 ? as_contiguous(as_type(grad, type)) : scaled_gradient(grad, stored.scale, type);
  Tensor grad_x = empty({grad.size(0), in_features}, type, grad);
  const std::int64_t columns = torch_layer::tile_columns(out_features, in_features);
  Tensor tile = empty({out_features, columns}, type, grad);
  for (std::int64_t first = 0; first < in_features; first += columns) {
    const std::int64_t width = std::min(columns, in_features - first);
    torch_layer::unpack_tile(TorchParallel(), table, stored.view, first, width, data_type(type, "grad"),
                             tile.mutable_data_ptr(), columns);
    multiply(scaled, part_of(tile, out_features, width), part_of(grad_x, grad.size(0), width, 0, first));
  }
  return as_type(grad_x, grad.scalar_type());
}

// dW in `dtype`: a product in float32 is not rounded to grad's type where the weight has a wider one.
Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features, ScalarType dtype) {
  check(grad.dim() == 2 && grad.size(0) == q.size(0), "linear_backward_weight: grad is ", grad, " and q ", q,
        ", wanted as many rows in both");
  check_quantized(q, scale, padded_in_features(in_features));
  const ScalarType type = product_type(grad.scalar_type());
  const CpuKernels& table = cpu_kernels_for(Backend::automatic);
  if (type == ScalarType::Float && has_float_products(table)) {
    const Tensor rows = as_float(grad);
    const Tensor codes = as_contiguous(q);
    const Tensor s = as_float(scale);
    Tensor grad_weight = empty({grad.size(1), in_features}, type, grad);
    TorchParallel parallel;
    torch_layer::take_new_pages(parallel, grad_weight.mutable_data_ptr(),
                                static_cast<std::int64_t>(bytes_of(grad_weight)));
    gradient_weight(table, parallel,
                    {.grad = floats(rows),
                     .q = const_data<std::int8_t>(codes),
                     .scale = floats(s),
                     .tokens = grad.size(0),
                     .out_features = grad.size(1),
                     .in_features = in_features,
                     .grad_weight = data<float>(grad_weight)});
    return as_type(grad_weight, dtype);
  }
  const Tensor scaled = scaled_gradient(grad, as_column(scale), type);
  const Tensor x = as_type(part_of(q, q.size(0), in_features), type);
  const Tensor grad_weight = empty({grad.size(1), in_features}, type, grad);
  multiply(transposed(scaled), x, grad_weight);
  return as_type(grad_weight, dtype);
}

// s q in `dtype`, rounded once.
Tensor dequantize_tokens(const Tensor& q, const Tensor& scale, std::int64_t in_features, ScalarType dtype) {
  check_quantized(q, scale, padded_in_features(in_features));
  const Tensor values = as_type(part_of(q, q.size(0), in_features), ScalarType::Float);
  return as_type(call("aten::mul", "Tensor", values, as_column(scale)), dtype);
}

// dW from s q in grad's type.
Tensor linear_backward_weight_float(const Tensor& grad, const Tensor& x, ScalarType dtype) {
  check_weight_gradient(grad, x);
  const ScalarType type = product_type(grad.scalar_type());
  const Tensor grad_weight = empty({grad.size(1), x.size(1)}, type, grad);
  multiply(transposed(as_type(grad, type)), as_type(x, type), grad_weight);
  return as_type(grad_weight, dtype);
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const optional<Tensor>& weight, double eps) {
  check(x.dim() >= 1 && x.size(-1) >= 1, "rms_norm: x must be [..., features >= 1], found ", x);
  data_type(x.scalar_type(), "x");
  const std::int64_t features = x.size(-1);
  const Tensor rows = as_float(x);
  const auto g = as_float(weight);
  check_vector(g, features, "rms_norm: the weight");
  Tensor y = empty(x.sizes(), ScalarType::Float, x);
  Tensor rstd = empty(Sizes(x.sizes().data(), x.sizes().size() - 1), ScalarType::Float, x);
  torch_layer::rms_norm_rows(TorchParallel(), floats(rows), floats(g), eps, rstd.numel(), features,
                             data<float>(y), data<float>(rstd));
  return {as_type(y, x.scalar_type()), rstd};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, bool wants_x,
                                             bool wants_weight) {
  check_norm_backward(grad, x, rstd);
  const std::int64_t features = x.size(-1);
  const Tensor u = as_float(grad);
  const Tensor values = as_float(x);
  const Tensor r = as_float(rstd);
  const auto g = as_float(weight);
  check_vector(g, features, "rms_norm_backward: the weight");
  wants_weight = wants_weight && g.has_value();
  const Tensor grad_x = wants_x ? empty(x.sizes(), ScalarType::Float, x) : no_gradient(x);
  const Tensor grad_weight =
      wants_weight ? empty({features}, ScalarType::Float, x) : no_gradient(weight ? *weight : x);
  torch_layer::rms_norm_backward_rows(
      TorchParallel(),
      {floats(u), floats(values), floats(g), floats(r), r.numel(), features,
       wants_x ? data<float>(grad_x) : nullptr, wants_weight ? data<float>(grad_weight) : nullptr});
  return {as_type(grad_x, x.scalar_type()),
          weight ? as_type(grad_weight, weight->scalar_type()) : grad_weight};
}

constexpr auto* kLayerBackward =
    &layer_backward<&linear_backward_input, &linear_backward_weight, &rms_norm_backward>;
constexpr auto* kLayerBackwardInt8 =
    &layer_backward_int8<&linear_backward_int8_cpu, &linear_backward_weight, &rms_norm_backward>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
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

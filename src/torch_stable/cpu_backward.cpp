// SPDX-License-Identifier: MIT
//
// RMSNorm and the backward operators on the CPU: the arithmetic of src/torch/cpu.cpp, so the same bits.
#include <algorithm>
#include <tuple>

#include "torch/row_kernels.h"
#include "torch/weight_tile.h"
#include "torch_stable/layer_backward.h"
#include "trit/linear.h"

namespace trit::torch_stable {
namespace {

using torch_layer::add_row;
using torch_layer::rms_norm_backward_row;
using torch_layer::rms_norm_row;

// The type of the float products of backward. CPUs have no fast float16 GEMM, and float32 is more accurate.
ScalarType product_type(ScalarType grad) {
  return grad == ScalarType::BFloat16 ? ScalarType::BFloat16 : ScalarType::Float;
}

// grad * scale, computed in float32 and rounded once to `type`.
Tensor scaled_gradient(const Tensor& grad, const Tensor& scale, ScalarType type) {
  return as_type(call("aten::mul", "Tensor", as_type(grad, ScalarType::Float), scale), type);
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features, std::int64_t group) {
  check_codes(codes, in_features);
  const std::int64_t out_features = codes.size(0);
  check_gradient(grad, out_features);
  const Tensor stored = as_contiguous(codes);
  const Tensor beta = as_float(weight_scale);
  granularity_of(beta, out_features, in_features, group);
  const ScalarType type = product_type(grad.scalar_type());
  const CpuKernels& table = cpu_kernels_for(Backend::automatic);
  if (group == 0 && type == ScalarType::Float && has_float_products(table)) {
    const Tensor rows = as_float(grad);
    Tensor grad_x = empty({grad.size(0), in_features}, type, grad);
    TorchParallel parallel;
    gradient_input(table, parallel,
                   {.grad = floats(rows),
                    .tokens = grad.size(0),
                    .weight = {out_features,
                               in_features,
                               {const_data<std::uint8_t>(stored), static_cast<std::size_t>(stored.numel())},
                               {floats(beta), static_cast<std::size_t>(beta.numel())}},
                    .grad_x = data<float>(grad_x)});
    return as_type(grad_x, grad.scalar_type());
  }
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type. Those of groups differ
  // between columns and go into the tile.
  const Tensor scaled = group != 0 ? as_contiguous(as_type(grad, type)) : scaled_gradient(grad, beta, type);
  Tensor grad_x = empty({grad.size(0), in_features}, type, grad);
  const std::int64_t columns = torch_layer::tile_columns(out_features, in_features);
  Tensor tile = empty({out_features, columns}, type, grad);
  const TernaryView view{out_features,
                         in_features,
                         {const_data<std::uint8_t>(stored), bytes_of(stored)},
                         {floats(beta), static_cast<std::size_t>(beta.numel())},
                         group};
  for (std::int64_t first = 0; first < in_features; first += columns) {
    const std::int64_t width = std::min(columns, in_features - first);
    torch_layer::unpack_tile(TorchParallel(), cpu_kernels_for(Backend::automatic), view, first, width,
                             data_type(type, "grad"), tile.mutable_data_ptr(), columns);
    const Tensor target = torch::stable::narrow(grad_x, 1, first, width);
    call("aten::mm", "out", scaled, torch::stable::narrow(tile, 1, 0, width), target);
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
  const Tensor scaled = scaled_gradient(grad, torch::stable::unsqueeze(scale, 1), type);
  Tensor codes = q;
  const Tensor x = as_type(torch::stable::narrow(codes, 1, 0, in_features), type);
  return as_type(call("aten::mm", "", torch::stable::transpose(scaled, 0, 1), x), dtype);
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
  const float* const from = floats(rows);
  auto* const to = data<float>(y);
  auto* const r = data<float>(rstd);
  TorchParallel().run(rstd.numel(), [&](std::int64_t row) {
    r[row] = rms_norm_row(from + row * features, floats(g), static_cast<float>(eps), features,
                          to + row * features);
  });
  return {as_type(y, x.scalar_type()), rstd};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, bool wants_x,
                                             bool wants_weight) {
  check_norm_backward(grad, x, rstd);
  const std::int64_t features = x.size(-1);
  const std::int64_t rows = rstd.numel();
  const Tensor u = as_float(grad);
  const Tensor values = as_float(x);
  const Tensor r = as_float(rstd);
  const auto g = as_float(weight);
  check_vector(g, features, "rms_norm_backward: the weight");
  // The weight's gradient is summed per chunk of rows, then over the chunks in order: 16 at most, whatever
  // the number of threads, so the bits do not depend on it.
  const std::int64_t chunks = std::min<std::int64_t>(rows, 16);
  wants_weight = wants_weight && g.has_value();
  const Tensor grad_x = wants_x ? empty(x.sizes(), ScalarType::Float, x) : no_gradient(x);
  std::vector<float> partial(
      wants_weight ? static_cast<std::size_t>(std::max<std::int64_t>(chunks, 1) * features) : 0);
  float* const to = wants_x ? data<float>(grad_x) : nullptr;
  if (wants_x || wants_weight) {
    TorchParallel().run(chunks, [&](std::int64_t chunk) {
      for (std::int64_t row = chunk * rows / chunks; row < (chunk + 1) * rows / chunks; ++row) {
        const std::int64_t at = row * features;
        rms_norm_backward_row(floats(u) + at, floats(values) + at, floats(g), floats(r)[row], features,
                              wants_x ? to + at : nullptr,
                              wants_weight ? partial.data() + chunk * features : nullptr);
      }
    });
  }
  if (wants_weight) {
    for (std::int64_t chunk = 1; chunk < chunks; ++chunk) {
      add_row(partial.data() + chunk * features, features, partial.data());
    }
    const Tensor grad_weight = empty({features}, ScalarType::Float, x);
    std::copy_n(partial.data(), features, data<float>(grad_weight));
    // wants_weight says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    return {as_type(grad_x, x.scalar_type()), as_type(grad_weight, weight->scalar_type())};
  }
  return {as_type(grad_x, x.scalar_type()), no_gradient(weight ? *weight : x)};
}

constexpr auto* kLayerBackward =
    &layer_backward<&linear_backward_input, &linear_backward_weight, &rms_norm_backward>;

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
  m.impl("linear_backward_input", TORCH_BOX(&linear_backward_input));
  m.impl("linear_backward_weight", TORCH_BOX(&linear_backward_weight));
  m.impl("rms_norm", TORCH_BOX(&rms_norm));
  m.impl("rms_norm_backward", TORCH_BOX(&rms_norm_backward));
  m.impl("bit_linear_backward", TORCH_BOX(kLayerBackward));
}

}  // namespace trit::torch_stable

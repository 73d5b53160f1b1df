// SPDX-License-Identifier: MIT
//
// The 8-bit backward on the CPU: the arithmetic of src/torch/backward_int8.cpp, so the same bits.
#include <algorithm>
#include <functional>
#include <tuple>

#include "torch/gradient_int8.h"
#include "torch/row_kernels.h"
#include "torch/transposed_weight.h"
#include "torch_stable/layer_backward.h"
#include "trit/linear.h"

namespace trit::torch_stable {
namespace {

const CpuKernels& kernels() { return cpu_kernels_for(Backend::automatic); }

GradientRounding rounding_of(const optional<Tensor>& rounding) {
  if (!rounding) {
    return {};
  }
  const auto* const words = const_data<std::int64_t>(*rounding);
  return {true, static_cast<std::uint64_t>(words[0]), static_cast<std::uint64_t>(words[1])};
}

torch_layer::GradientView view_of(const Tensor& rows) { return {floats(rows), rows.size(0), rows.size(1)}; }

// dX = dY · (beta t): dY to int8 per token, then the product with the transposed weight.
Tensor input_gradient(const Tensor& rows, ScalarType type, const StoredWeight& stored,
                      const GradientRounding& rounding) {
  const std::int64_t tokens = rows.size(0);
  const bool per_row = stored.view.granularity() == ScaleGranularity::row;
  const Tensor q = empty({tokens, padded_in_features(rows.size(1))}, ScalarType::Char, rows);
  const Tensor scale = empty({tokens}, ScalarType::Float, rows);
  const Tensor q_sum = empty({tokens}, ScalarType::Int, rows);
  const torch_layer::GradientRowCodes codes{data<std::int8_t>(q), data<float>(scale),
                                            data<std::int32_t>(q_sum)};
  torch_layer::quantize_gradient_rows(TorchParallel(), view_of(rows),
                                      per_row ? floats(stored.scale) : nullptr, rounding, codes);
  TorchParallel parallel;
  const PackedLinear weight = torch_layer::transposed_weight(kernels(), parallel, stored.view);
  Tensor grad_x = empty({tokens, stored.view.in_features}, type, rows);
  const DefaultFloatingPoint environment;
  weight.product(parallel, {codes.q, codes.scale, codes.q_sum, tokens}, nullptr, data_type(type, "grad"),
                 grad_x.mutable_data_ptr());
  return grad_x;
}

Tensor rows_from(const Tensor& matrix, std::int64_t first, std::int64_t count) {
  return part_of(matrix, count, matrix.size(1), first);
}

// gᵀ · q [N, K] in int32, exact.
Tensor exact_product(const Tensor& g, const Tensor& q) {
  if (torch_layer::has_exact_int8_product(kernels())) {
    // As in src/torch/backward_int8.cpp: the stride of a single row must be its length.
    const std::array<std::int64_t, 2> row{1, g.size(0)};
    return call("aten::_int_mm", "", g.size(1) == 1 ? with_sizes(g, row) : transposed(g), q);
  }
  const std::int64_t tokens = g.size(0);
  Tensor sums;
  for (std::int64_t first = 0; first < tokens; first += torch_layer::kExactTokens) {
    const std::int64_t count = std::min(torch_layer::kExactTokens, tokens - first);
    const Tensor part =
        as_type(call("aten::mm", "", as_type(transposed(rows_from(g, first, count)), ScalarType::Float),
                     as_type(rows_from(q, first, count), ScalarType::Float)),
                ScalarType::Int);
    if (first == 0) {
      sums = part;
      continue;
    }
    // The stable ABI's additions take a float factor, which integers refuse.
    const auto* const from = const_data<std::int32_t>(part);
    std::transform(from, from + part.numel(), data<std::int32_t>(sums), data<std::int32_t>(sums),
                   std::plus<>());
  }
  return sums;
}

// dW = dYᵀ · (s q)
Tensor weight_gradient(const Tensor& rows, const Tensor& q, const Tensor& token_scale,
                       std::int64_t in_features, const GradientRounding& rounding) {
  const std::int64_t outputs = rows.size(1);
  const std::array<std::int64_t, 2> shape{outputs, in_features};
  if (rows.size(0) == 0) {
    return torch::stable::new_zeros(rows, shape);
  }
  const std::array<std::int64_t, 2> of_activations{q.size(0), in_features};
  const std::array<std::int64_t, 2> strides{q.size(1), 1};
  const Tensor activations = torch_stable::view_of(as_contiguous(q), of_activations, strides);
  Tensor total = empty({outputs, in_features}, ScalarType::Float, rows);
  for (std::int64_t first = 0; first < rows.size(0); first += kMaxGradientTokens) {
    const std::int64_t count = std::min(kMaxGradientTokens, rows.size(0) - first);
    const Tensor codes = empty({count, outputs}, ScalarType::Char, rows);
    const Tensor scale = empty({outputs}, ScalarType::Float, rows);
    torch_layer::quantize_gradient_outputs(TorchParallel(), view_of(rows_from(rows, first, count)),
                                           floats(token_scale) + first, first, rounding,
                                           data<std::int8_t>(codes), data<float>(scale));
    const Tensor sums = exact_product(codes, rows_from(activations, first, count));
    const Tensor part = first == 0 ? total : empty({outputs, in_features}, ScalarType::Float, rows);
    torch_layer::scale_rows(TorchParallel(), const_data<std::int32_t>(sums), floats(scale), outputs,
                            in_features, data<float>(part));
    if (first > 0) {
      torch_layer::add_row(floats(part), part.numel(), data<float>(total));
    }
  }
  return total;
}

}  // namespace

void check_backward_int8(const Tensor& grad, const Tensor& q, const Tensor& scale, const Tensor& codes,
                         const optional<Tensor>& rounding, std::int64_t in_features, std::int64_t q_width) {
  check_codes(codes, in_features);
  check_gradient(grad, codes.size(0));
  check(q.dim() == 2 && grad.size(0) == q.size(0), "linear_backward_int8: grad is ", grad, " and q ", q,
        ", wanted as many rows in both");
  check_quantized(q, scale, q_width);
  if (rounding) {
    check(rounding->dim() == 1 && rounding->size(0) == 2 && rounding->is_contiguous() &&
              rounding->scalar_type() == ScalarType::Long,
          "linear_backward_int8: rounding must be contiguous int64 [2], seed and offset, found ", *rounding);
  }
}

std::tuple<Tensor, Tensor> linear_backward_int8_cpu(const Tensor& grad, const Tensor& q, const Tensor& scale,
                                                    const Tensor& codes, const Tensor& weight_scale,
                                                    std::int64_t in_features, ScalarType weight_dtype,
                                                    bool wants_x, bool wants_weight,
                                                    const optional<Tensor>& rounding) {
  check_backward_int8(grad, q, scale, codes, rounding, in_features, padded_in_features(in_features));
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, 0);
  const GradientRounding random = rounding_of(rounding);
  const Tensor rows = as_float(grad);
  return {wants_x ? input_gradient(rows, grad.scalar_type(), stored, random) : no_gradient(grad),
          wants_weight ? as_type(weight_gradient(rows, q, as_float(scale), in_features, random), weight_dtype)
                       : no_gradient(grad)};
}

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
  m.impl("linear_backward_int8", TORCH_BOX(&linear_backward_int8_cpu));
}

}  // namespace trit::torch_stable

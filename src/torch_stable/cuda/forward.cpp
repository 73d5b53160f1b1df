// SPDX-License-Identifier: MIT
//
// The forward operators on a GPU: launches of trit/cuda.h on the current stream. None waits for the GPU, and
// memory is LibTorch's, so that all of them may be captured into a CUDA graph. Here q has rows of
// quantized_row_bytes(K), 16-byte aligned, and a prepared weight has no header.
#include <tuple>

#include "torch/cuda/kernels.h"
#include "torch/cuda/layer.h"
#include "torch_stable/cuda/launch.h"

namespace trit::torch_stable {
namespace {

using cuda::DeviceGuard;
using torch_layer::cuda::LayerWeight;
namespace launches = torch_layer::cuda;

optional<Tensor> vector_of(const optional<Tensor>& tensor, std::int64_t size, const char* what,
                           const Tensor& x) {
  auto values = as_float(tensor);
  if (values) {
    check_vector(values, size, what);
    cuda::check_device(*values, what, x);
  }
  return values;
}

void quantize(const Rows& rows, const optional<Tensor>& norm_weight, bool rms, double eps, std::int8_t* q,
              float* scale, float* rstd) {
  const auto weight = rms ? vector_of(norm_weight, rows.features, "the norm's weight", rows.x) : std::nullopt;
  const trit::cuda::Device& device = cuda::device_of(rows.x);
  auto args = torch_layer::norm_quant_arguments<trit::cuda::NormQuant>(
      rows.view(), {rms, floats(weight), eps}, q, scale, rstd);
  args.programmatic = device.compute_capability >= 90;  // it reads nothing before it waits
  trit::cuda::norm_quant(device, args, cuda::stream_of(rows.x));
}

// y = epilogue(q · tᵀ). `programmatic`: the preceding kernel is the norm_quant that computes q, so that no
// other operand is still being written.
void product(const std::int8_t* q, const float* scale, std::int64_t tokens, const LayerWeight& weight,
             const optional<Tensor>& bias, bool programmatic, const Tensor& y) {
  const auto offset = vector_of(bias, weight.out_features, "the bias", y);
  // A bias that has just been converted is still being written.
  const bool converted = offset && bias && offset->const_data_ptr() != bias->const_data_ptr();
  const trit::cuda::Device& device = cuda::device_of(y);
  const auto workspace =
      cuda::workspace(y, trit::cuda::product_workspace_bytes(device, tokens, weight.out_features,
                                                             weight.in_features, weight.group));
  launches::product(device, weight, {q, scale, nullptr, tokens}, floats(offset),
                    data_type(y.scalar_type(), "y"), y.mutable_data_ptr(), workspace.data,
                    programmatic && !converted, cuda::stream_of(y));
}

Tensor empty_q(const Rows& rows) {
  return empty({rows.count, trit::cuda::quantized_row_bytes(rows.features)}, ScalarType::Char, rows.x);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_quant(const Tensor& x, const optional<Tensor>& norm_weight,
                                                      bool rms, double eps, bool wants_sum) {
  check(x.dim() == 2, "norm_quant: x must be [tokens, in_features >= 1], found ", x);
  const DeviceGuard guard(x.get_device_index());
  const Rows rows = rows_of(x);
  Tensor q = empty_q(rows);
  Tensor scale = empty({rows.count}, ScalarType::Float, x);
  Tensor rstd = empty({rows.count}, ScalarType::Float, x);
  quantize(rows, norm_weight, rms, eps, data<std::int8_t>(q), data<float>(scale), data<float>(rstd));
  const std::array<std::int64_t, 1> last{1};  // the products of a GPU do not read the sums
  return {q, scale, rstd,
          wants_sum ? torch::stable::sum(q, last, false, ScalarType::Int) : empty({0}, ScalarType::Int, x)};
}

Tensor absmean(const Tensor& weight, bool per_row, std::int64_t group) {
  check_group(group);
  check_weight(weight);
  const DeviceGuard guard(weight.get_device_index());
  const Tensor w = as_float(weight);
  const ScaleGranularity granularity = torch_layer::wanted_granularity(per_row, group);
  Tensor scale = empty(torch_layer::scale_shape(w.size(0), w.size(1), per_row, group), ScalarType::Float, w);
  const bool sums_wanted = granularity == ScaleGranularity::tensor;
  const auto bytes = static_cast<std::int64_t>(trit::cuda::absmean_workspace_bytes(w.size(0)));
  const Tensor sums = empty({sums_wanted ? bytes : 0}, ScalarType::Byte, w);
  trit::cuda::absmean(floats(w), w.size(0), w.size(1), granularity, data<float>(scale),
                      sums_wanted ? sums.mutable_data_ptr() : nullptr, cuda::stream_of(w), group);
  return scale;
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale, std::int64_t group) {
  check_weight(weight);
  cuda::check_device(scale, "the weight's scale", weight);
  const DeviceGuard guard(weight.get_device_index());
  const Tensor w = as_float(weight);
  const Tensor beta = as_float(scale);
  Tensor codes = empty({w.size(0), packed_row_bytes(w.size(1))}, ScalarType::Byte, w);
  trit::cuda::ternarize_pack(floats(w), w.size(0), w.size(1),
                             granularity_of(beta, w.size(0), w.size(1), group), floats(beta),
                             data<std::uint8_t>(codes), cuda::stream_of(w), group);
  return codes;
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, std::int64_t in_features, ScalarType dtype,
                  std::int64_t group) {
  cuda::check_device(scale, "the weight's scale", codes);
  const DeviceGuard guard(codes.get_device_index());
  const StoredWeight stored = stored_weight(codes, scale, in_features, group);
  const Tensor w = empty({codes.size(0), in_features}, ScalarType::Float, codes);
  launches::dequantize(stored.view, 0, in_features, DataType::float32, w.mutable_data_ptr(),
                       cuda::stream_of(codes));
  return as_type(w, dtype);
}

// Group scales are a part of it, in the products' order.
Tensor prepare(const Tensor& codes, std::int64_t in_features, const optional<Tensor>& weight_scale,
               std::int64_t group) {
  if (weight_scale) {
    cuda::check_device(*weight_scale, "the weight's scale", codes);
  }
  const DeviceGuard guard(codes.get_device_index());
  const StoredWeight stored = stored_to_prepare(codes, in_features, weight_scale, group);
  Tensor prepared =
      empty({static_cast<std::int64_t>(launches::prepared_bytes(codes.size(0), in_features, group))},
            ScalarType::Byte, codes);
  launches::prepare(stored.view, data<std::uint8_t>(prepared), cuda::stream_of(codes));
  return prepared;
}

// A float weight as a layer's forward uses it and its backward reads it.
struct Packed {
  Tensor codes;
  Tensor scale;
  Tensor prepared;  // and scratch behind it
  LayerWeight view;
};
Packed pack(const Tensor& weight, bool per_row, std::int64_t group) {
  const Tensor w = as_float(weight);
  const std::int64_t out_features = w.size(0);
  const std::int64_t in_features = w.size(1);
  Packed to{
      .codes = empty({out_features, packed_row_bytes(in_features)}, ScalarType::Byte, w),
      .scale =
          empty(torch_layer::scale_shape(out_features, in_features, per_row, group), ScalarType::Float, w),
      .prepared = empty(
          {static_cast<std::int64_t>(launches::packing_bytes(out_features, in_features, per_row, group))},
          ScalarType::Byte, w),
      .view = {}};
  to.view = {const_data<std::uint8_t>(to.prepared),           out_features, in_features, floats(to.scale),
             torch_layer::wanted_granularity(per_row, group), group};
  const auto counter = cuda::workspace(w, group == 0 ? sizeof(std::int32_t) : 0);
  launches::pack(cuda::device_of(w),
                 {floats(w), out_features, in_features, per_row, group, data<float>(to.scale),
                  data<std::uint8_t>(to.codes), data<std::uint8_t>(to.prepared), counter.data},
                 cuda::stream_of(w));
  return to;
}

std::tuple<Tensor, Tensor, Tensor> pack_weight(const Tensor& weight, bool per_row, std::int64_t group) {
  check_weight(weight);
  check_group(group);
  const DeviceGuard guard(weight.get_device_index());
  const Packed packed = pack(weight, per_row, group);
  const std::array<std::int64_t, 1> bytes{static_cast<std::int64_t>(
      launches::prepared_bytes(packed.view.out_features, packed.view.in_features, group))};
  return {packed.codes, packed.scale, with_sizes(packed.prepared, bytes)};
}

// `x` is what the weight must be on the device of.
LayerWeight checked_weight(const Tensor& prepared, const Tensor& scale, std::int64_t out_features,
                           std::int64_t in_features, std::int64_t group, const Tensor& x) {
  cuda::check_device(prepared, "the prepared weight", x);
  cuda::check_device(scale, "the weight's scale", x);
  const ScaleGranularity granularity = granularity_of(scale, out_features, in_features, group);
  const auto bytes = static_cast<std::int64_t>(launches::prepared_bytes(out_features, in_features, group));
  check(prepared.dim() == 1 && prepared.scalar_type() == ScalarType::Byte && prepared.size(0) == bytes &&
            prepared.is_contiguous(),
        "bit_linear: the prepared weight must be uint8 [", bytes, "] for [", out_features, ", ", in_features,
        "] on a GPU, found ", prepared);
  check(scale.scalar_type() == ScalarType::Float && scale.is_contiguous(),
        "bit_linear: the weight's scale must be contiguous float32, found ", scale);
  return {const_data<std::uint8_t>(prepared), out_features, in_features, floats(scale), granularity, group};
}

Tensor prepared_linear(const Tensor& q, const Tensor& scale, const Tensor& /*q_sum*/, const Tensor& prepared,
                       const Tensor& weight_scale, std::int64_t out_features, std::int64_t in_features,
                       const optional<Tensor>& bias, ScalarType dtype, std::int64_t group) {
  check_quantized(q, scale, trit::cuda::quantized_row_bytes(in_features));
  cuda::check_device(scale, "the token scale", q);
  const DeviceGuard guard(q.get_device_index());
  const LayerWeight weight = checked_weight(prepared, weight_scale, out_features, in_features, group, q);
  const Tensor codes = as_contiguous(q);
  const Tensor scales = as_contiguous(scale);
  Tensor y = empty({q.size(0), out_features}, dtype, q);
  product(const_data<std::int8_t>(codes), floats(scales), q.size(0), weight, bias, /*programmatic=*/false, y);
  return y;
}

Tensor packed_linear(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Tensor& codes,
                     const Tensor& weight_scale, std::int64_t in_features, const optional<Tensor>& bias,
                     ScalarType dtype, std::int64_t group) {
  return prepared_linear(q, scale, q_sum, prepare(codes, in_features, weight_scale, group),
                         as_float(weight_scale), codes.size(0), in_features, bias, dtype, group);
}

// The whole layer for inference: two launches and two allocations.
Tensor bit_linear_prepared(const Tensor& x, const Tensor& prepared, const Tensor& weight_scale,
                           std::int64_t out_features, std::int64_t in_features, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, std::int64_t group) {
  check(x.dim() >= 1 && x.size(-1) == in_features, "bit_linear: x must be [..., ", in_features, "], found ",
        x);
  const DeviceGuard guard(x.get_device_index());
  const Rows rows = rows_of(x);
  const LayerWeight weight = checked_weight(prepared, weight_scale, out_features, in_features, group, x);
  Tensor y = empty(sizes_with_last(x, out_features), x.scalar_type(), x);
  const std::int64_t q_bytes = rows.count * trit::cuda::quantized_row_bytes(rows.features);
  const Tensor scratch = empty({q_bytes + 4 * rows.count}, ScalarType::Char, x);
  auto* const q = data<std::int8_t>(scratch);
  auto* const scale = reinterpret_cast<float*>(q + q_bytes);  // a multiple of 16 behind q
  quantize(rows, norm_weight, rms, eps, q, scale, nullptr);
  product(q, scale, rows.count, weight, bias, /*programmatic=*/true, y);
  return y;
}

// A forward pass that is recorded, of a prepared weight.
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x, const LayerWeight& weight,
                                           const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                           bool rms, double eps) {
  const Rows rows = rows_of(x);
  Tensor q = empty_q(rows);
  Tensor scales = empty({2, rows.count}, ScalarType::Float, x);
  auto* const scale = data<float>(scales);
  Tensor y = empty(sizes_with_last(x, weight.out_features), x.scalar_type(), x);
  quantize(rows, norm_weight, rms, eps, data<std::int8_t>(q), scale, scale + rows.count);
  product(const_data<std::int8_t>(q), scale, rows.count, weight, bias, /*programmatic=*/true, y);
  return {y, q, scales};
}

// Three launches: the weight in one pass over it, the activations, the product.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bit_linear_train(const Tensor& x, const Tensor& weight,
                                                                    const optional<Tensor>& bias,
                                                                    const optional<Tensor>& norm_weight,
                                                                    bool rms, double eps, bool per_row,
                                                                    std::int64_t group) {
  check_weight(weight);
  check_group(group);
  check(x.dim() >= 1 && x.size(-1) == weight.size(1), "bit_linear: x must be [..., ", weight.size(1),
        "], found ", x);
  cuda::check_device(weight, "the weight", x);
  const DeviceGuard guard(x.get_device_index());
  const Packed packed = pack(weight, per_row, group);
  const auto [y, q, scales] = forward(x, packed.view, bias, norm_weight, rms, eps);
  return {y, q, scales, packed.codes, packed.scale};
}

// The same of a weight that is ternary already.
std::tuple<Tensor, Tensor, Tensor> bit_linear_train_codes(const Tensor& x, const Tensor& codes,
                                                          const Tensor& weight_scale,
                                                          std::int64_t in_features,
                                                          const optional<Tensor>& bias,
                                                          const optional<Tensor>& norm_weight, bool rms,
                                                          double eps, std::int64_t group) {
  check(x.dim() >= 1 && x.size(-1) == in_features, "bit_linear: x must be [..., ", in_features, "], found ",
        x);
  cuda::check_device(codes, "the weight", x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor prepared = prepare(codes, in_features, weight_scale, group);
  return forward(x, checked_weight(prepared, weight_scale, codes.size(0), in_features, group, x), bias,
                 norm_weight, rms, eps);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CUDA, m) {
  m.impl("norm_quant", TORCH_BOX(&norm_quant));
  m.impl("absmean", TORCH_BOX(&absmean));
  m.impl("ternarize_pack", TORCH_BOX(&ternarize_pack));
  m.impl("dequantize", TORCH_BOX(&dequantize));
  m.impl("prepare", TORCH_BOX(&prepare));
  m.impl("pack_weight", TORCH_BOX(&pack_weight));
  m.impl("packed_linear", TORCH_BOX(&packed_linear));
  m.impl("prepared_linear", TORCH_BOX(&prepared_linear));
  m.impl("bit_linear_prepared", TORCH_BOX(&bit_linear_prepared));
  m.impl("bit_linear_train", TORCH_BOX(&bit_linear_train));
  m.impl("bit_linear_train_codes", TORCH_BOX(&bit_linear_train_codes));
}

}  // namespace trit::torch_stable

// SPDX-License-Identifier: MIT
//
// The forward operators on the CPU: each checks its tensors and calls one function of linear.h or prepared.h.
#include <cstring>
#include <memory>
#include <tuple>

#include "base/buffer.h"
#include "torch_stable/tensors.h"
#include "trit/linear.h"
#include "trit/prepared.h"

namespace trit::torch_stable {
namespace {

const CpuKernels& kernels() { return cpu_kernels_for(Backend::automatic); }

// Where norm_quant writes. q [M, padded_in_features(K)], the rest [M]; rstd may be null.
struct Quantized {
  std::int8_t* q;
  float* scale;
  float* rstd;
  std::int32_t* q_sum;
};

void quantize(const Rows& rows, const optional<Tensor>& norm_weight, bool rms, double eps,
              const Quantized& to) {
  const auto weight = rms ? as_float(norm_weight) : std::nullopt;
  check_vector(weight, rows.features, "norm_quant: the norm's weight");
  TorchParallel parallel;
  auto args = torch_layer::norm_quant_arguments<NormQuant>(rows.view(), {rms, floats(weight), eps}, to.q,
                                                           to.scale, to.rstd);
  args.q_sum = to.q_sum;
  trit::norm_quant(kernels(), parallel, args);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_quant(const Tensor& x, const optional<Tensor>& norm_weight,
                                                      bool rms, double eps, bool /*wants_sum*/) {
  check(x.dim() == 2, "norm_quant: x must be [tokens, in_features >= 1], found ", x);
  const Rows rows = rows_of(x);
  Tensor q = empty({rows.count, padded_in_features(rows.features)}, ScalarType::Char, x);
  Tensor scale = empty({rows.count}, ScalarType::Float, x);
  Tensor rstd = empty({rows.count}, ScalarType::Float, x);
  Tensor q_sum = empty({rows.count}, ScalarType::Int, x);
  const DefaultFloatingPoint environment;
  quantize(rows, norm_weight, rms, eps,
           {data<std::int8_t>(q), data<float>(scale), data<float>(rstd), data<std::int32_t>(q_sum)});
  return {q, scale, rstd, q_sum};
}

Tensor absmean(const Tensor& weight, bool per_row, std::int64_t group) {
  check_weight(weight);
  check_group(group);
  const Tensor w = as_float(weight);
  Tensor scale = empty(torch_layer::scale_shape(w.size(0), w.size(1), per_row, group), ScalarType::Float, w);
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::absmean(kernels(), parallel, floats(w), w.size(0), w.size(1),
                torch_layer::wanted_granularity(per_row, group), data<float>(scale), group);
  return scale;
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale, std::int64_t group) {
  check_weight(weight);
  const Tensor w = as_float(weight);
  const Tensor beta = as_float(scale);
  Tensor codes = empty({w.size(0), packed_row_bytes(w.size(1))}, ScalarType::Byte, w);
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::ternarize_pack(kernels(), parallel, floats(w), w.size(0), w.size(1),
                       granularity_of(beta, w.size(0), w.size(1), group), floats(beta),
                       data<std::uint8_t>(codes), group);
  return codes;
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, std::int64_t in_features, ScalarType dtype,
                  std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, scale, in_features, group);
  Tensor w = empty({codes.size(0), in_features}, ScalarType::Float, codes);
  const DefaultFloatingPoint environment;
  TorchParallel parallel;
  trit::dequantize(kernels(), parallel, stored.view, data<float>(w));
  return as_type(w, dtype);
}

// The panels in memory of their own: an AlignedBuffer lies on huge pages where LibTorch's does not.
Tensor prepare(const Tensor& codes, std::int64_t in_features, const optional<Tensor>& weight_scale,
               std::int64_t group) {
  const StoredWeight stored = stored_to_prepare(codes, in_features, weight_scale, group);
  auto memory = std::make_unique<AlignedBuffer>(
      prepared_bytes(kernels(), PanelFormat::two_bit, codes.size(0), in_features, group));
  TorchParallel parallel;
  prepare_weight(kernels(), parallel, stored.view, PanelFormat::two_bit, {memory->data(), memory->size()});
  const std::array<std::int64_t, 1> sizes{static_cast<std::int64_t>(memory->size())};
  const std::array<std::int64_t, 1> strides{1};
  std::uint8_t* const bytes = memory->data();
  return torch::stable::from_blob(bytes, sizes, strides, codes.device(), ScalarType::Byte,
                                  [buffer = std::shared_ptr<AlignedBuffer>(std::move(memory))](void*) {});
}

std::tuple<Tensor, Tensor, Tensor> pack_weight(const Tensor& weight, bool per_row, std::int64_t group) {
  Tensor scale = absmean(weight, per_row, group);
  Tensor codes = ternarize_pack(weight, scale, group);
  return {codes, scale, prepare(codes, weight.size(1), scale, group)};
}

// A copy of a tensor that does not begin on a cache line (a view, or one from a file).
Tensor aligned(const Tensor& prepared) {
  const auto address = reinterpret_cast<std::uintptr_t>(prepared.const_data_ptr());
  return prepared.is_contiguous() && address % kPreparedAlignment == 0 ? prepared
                                                                       : torch::stable::clone(prepared);
}

struct PreparedWeight {
  const Tensor& prepared;
  const Tensor& scale;
  std::int64_t out_features;
  std::int64_t in_features;
  std::int64_t group;
};

void product(const QuantizedRows& x, const PreparedWeight& weight, const optional<Tensor>& bias,
             const Tensor& y) {
  check(weight.prepared.dim() == 1 && weight.prepared.scalar_type() == ScalarType::Byte,
        "bit_linear: the prepared weight must be uint8 [bytes], found ", weight.prepared);
  const Tensor prepared = aligned(weight.prepared);
  const Tensor beta = as_float(weight.scale);
  const auto offset = as_float(bias);
  check_vector(offset, weight.out_features, "bit_linear: the bias");
  TorchParallel parallel;
  trit::product(kernels(), parallel,
                {.prepared = {const_data<std::uint8_t>(prepared), bytes_of(prepared)},
                 .out_features = weight.out_features,
                 .in_features = weight.in_features,
                 .weight_scale = {floats(beta), static_cast<std::size_t>(beta.numel())},
                 .x = x,
                 .bias = floats(offset),
                 .y_type = data_type(y.scalar_type(), "y"),
                 .y = y.mutable_data_ptr(),
                 .group = weight.group});
}

// q, scale and q_sum as a product takes them.
struct QuantizedTensors {
  Tensor q, scale, q_sum;
  QuantizedRows rows() const {
    return {const_data<std::int8_t>(q), floats(scale), const_data<std::int32_t>(q_sum), q.size(0)};
  }
};
QuantizedTensors quantized(const Tensor& q, const Tensor& scale, const Tensor& q_sum,
                           std::int64_t in_features) {
  check_quantized(q, scale, padded_in_features(in_features));
  check(q_sum.scalar_type() == ScalarType::Int && q_sum.numel() == q.size(0),
        "packed_linear: wanted q_sum int32 [tokens], found ", q_sum);
  return {as_contiguous(q), as_contiguous(scale), as_contiguous(q_sum)};
}

Tensor prepared_linear(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Tensor& prepared,
                       const Tensor& weight_scale, std::int64_t out_features, std::int64_t in_features,
                       const optional<Tensor>& bias, ScalarType dtype, std::int64_t group) {
  const QuantizedTensors x = quantized(q, scale, q_sum, in_features);
  Tensor y = empty({q.size(0), out_features}, dtype, q);
  const DefaultFloatingPoint environment;
  product(x.rows(), {prepared, weight_scale, out_features, in_features, group}, bias, y);
  return y;
}

// From the stored form, for a weight that is used once.
void product_once(const QuantizedRows& x, const TernaryView& weight, const optional<Tensor>& bias,
                  const Tensor& y) {
  const auto offset = as_float(bias);
  check_vector(offset, weight.out_features, "bit_linear: the bias");
  TorchParallel parallel;
  PackedLinear(kernels(), parallel, weight, PanelFormat::two_bit)
      .product(parallel, x, floats(offset), data_type(y.scalar_type(), "y"), y.mutable_data_ptr());
}

Tensor packed_linear(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Tensor& codes,
                     const Tensor& weight_scale, std::int64_t in_features, const optional<Tensor>& bias,
                     ScalarType dtype, std::int64_t group) {
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  const QuantizedTensors x = quantized(q, scale, q_sum, in_features);
  Tensor y = empty({q.size(0), codes.size(0)}, dtype, q);
  const DefaultFloatingPoint environment;
  product_once(x.rows(), stored.view, bias, y);
  return y;
}

// The whole layer for inference, its quantised activations in one piece of scratch memory: of a token or two on
// the stack, since a tensor of LibTorch costs the host a microsecond.
Tensor bit_linear_prepared(const Tensor& x, const Tensor& prepared, const Tensor& weight_scale,
                           std::int64_t out_features, std::int64_t in_features, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, std::int64_t group) {
  check(x.dim() >= 1 && x.size(-1) == in_features, "bit_linear: x must be [..., ", in_features, "], found ",
        x);
  const Rows rows = rows_of(x);
  Tensor y = empty(sizes_with_last(x, out_features), x.scalar_type(), x);
  const std::int64_t q_bytes = (rows.count * padded_in_features(rows.features) + 63) / 64 * 64;
  const std::int64_t bytes = q_bytes + 8 * rows.count;
  alignas(64) std::array<std::int8_t, 16384>
      small;  // NOLINT(cppcoreguidelines-pro-type-member-init): written before read
  const bool fits = bytes <= static_cast<std::int64_t>(small.size());
  const auto large = fits ? std::nullopt : optional(empty({bytes}, ScalarType::Char, x));
  auto* const q = large ? data<std::int8_t>(*large) : small.data();
  auto* const scale = reinterpret_cast<float*>(q + q_bytes);
  auto* const q_sum = reinterpret_cast<std::int32_t*>(scale + rows.count);
  const DefaultFloatingPoint environment;
  quantize(rows, norm_weight, rms, eps, {q, scale, nullptr, q_sum});
  product({q, scale, q_sum, rows.count}, {prepared, weight_scale, out_features, rows.features, group}, bias,
          y);
  return y;
}

// The layer for training, of a weight that is ternary already.
std::tuple<Tensor, Tensor, Tensor> bit_linear_train_codes(const Tensor& x, const Tensor& codes,
                                                          const Tensor& weight_scale,
                                                          std::int64_t in_features,
                                                          const optional<Tensor>& bias,
                                                          const optional<Tensor>& norm_weight, bool rms,
                                                          double eps, std::int64_t group) {
  check(x.dim() >= 1 && x.size(-1) == in_features, "bit_linear: x must be [..., ", in_features, "], found ",
        x);
  const StoredWeight stored = stored_weight(codes, weight_scale, in_features, group);
  const Rows rows = rows_of(x);
  Tensor q = empty({rows.count, padded_in_features(rows.features)}, ScalarType::Char, x);
  Tensor scales = empty({2, rows.count}, ScalarType::Float, x);
  auto* const scale = data<float>(scales);
  const Tensor q_sum = empty({rows.count}, ScalarType::Int, x);
  Tensor y = empty(sizes_with_last(x, codes.size(0)), x.scalar_type(), x);
  const DefaultFloatingPoint environment;
  quantize(rows, norm_weight, rms, eps,
           {data<std::int8_t>(q), scale, scale + rows.count, data<std::int32_t>(q_sum)});
  product_once({const_data<std::int8_t>(q), scale, const_data<std::int32_t>(q_sum), rows.count}, stored.view,
               bias, y);
  return {y, q, scales};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bit_linear_train(const Tensor& x, const Tensor& weight,
                                                                    const optional<Tensor>& bias,
                                                                    const optional<Tensor>& norm_weight,
                                                                    bool rms, double eps, bool per_row,
                                                                    std::int64_t group) {
  check_weight(weight);
  check(x.dim() >= 1 && x.size(-1) == weight.size(1), "bit_linear: x must be [..., ", weight.size(1),
        "], found ", x);
  Tensor weight_scale = absmean(weight, per_row, group);
  Tensor codes = ternarize_pack(weight, weight_scale, group);
  const auto [y, q, scales] =
      bit_linear_train_codes(x, codes, weight_scale, weight.size(1), bias, norm_weight, rms, eps, group);
  return {y, q, scales, codes, weight_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(trit_stable, CPU, m) {
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

// SPDX-License-Identifier: MIT
//
// The forward operators on a GPU: activations and weights to integers, the product, the whole layer. Each
// checks its tensors and launches kernels of trit/cuda.h on the current stream. No operator of this folder
// waits for the GPU, and memory is LibTorch's, so that all of them may be captured into a CUDA graph.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "torch/arguments.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/layer.h"
#include "torch/cuda/prepared_weight.h"
#include "torch/layer.h"
#include "torch/ops.h"
#include "trit/linear.h"

namespace trit::torch_layer {
namespace {

using c10::cuda::CUDAGuard;
using cuda::empty;
using std::optional;
using torch::ScalarType;
using torch::Tensor;
using Packed = c10::intrusive_ptr<PackedWeight>;

// Rows of x [..., K]: side by side or further apart; anything else (transposed, expanded) is copied.
struct Rows {
  Tensor x;  // keeps a copy alive
  std::int64_t count;
  std::int64_t features;
  std::int64_t stride;
};
Rows rows_of(const Tensor& x) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, "trit: x must be [..., in_features >= 1], found ", x.sizes());
  const std::int64_t features = x.size(-1);
  const std::int64_t count = x.numel() / features;
  if (x.is_contiguous()) {
    return {x, count, features, features};
  }
  const Tensor rows = x.reshape({-1, features});
  if (rows.stride(1) == 1 && rows.stride(0) >= features) {
    return {rows, count, features, rows.stride(0)};
  }
  return {rows.contiguous(), count, features, features};
}

optional<Tensor> norm_weight_of(const optional<Tensor>& norm_weight, bool rms, const Rows& rows) {
  auto weight = rms ? float_of(norm_weight) : std::nullopt;
  if (weight) {
    cuda::check_device(*weight, "the norm's weight", rows.x);
    TORCH_CHECK(weight->numel() == rows.features, "trit::norm_quant: the norm's weight must be [",
                rows.features, "], found ", weight->sizes());
  }
  return weight;
}

// Activations as a product takes them. q [M, quantized_row_bytes(K)], scale and rstd [M].
void quantize(const Rows& rows, const optional<Tensor>& norm_weight, bool rms, double eps, std::int8_t* q,
              float* scale, float* rstd) {
  const auto weight = norm_weight_of(norm_weight, rms, rows);
  const trit::cuda::Device& device = cuda::device_of(rows.x);
  auto args = norm_quant_arguments<trit::cuda::NormQuant>(
      {rows.x.const_data_ptr(), data_type(rows.x.scalar_type(), "x"), rows.count, rows.features, rows.stride},
      {rms, pointer_or_null(weight), eps}, q, scale, rstd);
  args.programmatic = device.compute_capability >= 90;  // it reads nothing before it waits
  trit::cuda::norm_quant(device, args, cuda::stream_of(rows.x));
}

// y = epilogue(q · tᵀ). `programmatic`: the preceding kernel is the norm_quant that computes q, so that
// no other operand is still being written.
void product(const std::int8_t* q, const float* scale, const PackedWeight& weight,
             const optional<Tensor>& bias, bool programmatic, std::int64_t tokens, Tensor& y) {
  const auto offset = float_of(bias);
  if (offset) {
    cuda::check_device(*offset, "the bias", y);
    TORCH_CHECK(offset->numel() == weight.out_features(), "trit::packed_linear: the bias must be [",
                weight.out_features(), "], found ", offset->sizes());
  }
  // A bias that has just been converted is still being written.
  const bool converted = offset && bias && offset->const_data_ptr() != bias->const_data_ptr();
  const trit::cuda::Device& device = cuda::device_of(y);
  const TernaryView stored = weight.view();
  const Tensor workspace =
      cuda::workspace(y, trit::cuda::product_workspace_bytes(device, tokens, stored.out_features,
                                                             stored.in_features, stored.group));
  cuda::product(device,
                {weight.cuda().data(), stored.out_features, stored.in_features, stored.scale.data(),
                 stored.granularity(), stored.group},
                {q, scale, nullptr, tokens}, pointer_or_null(offset), data_type(y.scalar_type(), "y"),
                y.mutable_data_ptr(), workspace.defined() ? workspace.mutable_data_ptr() : nullptr,
                programmatic && !converted, cuda::stream_of(y));
}

Tensor empty_q(const Rows& rows) {
  return empty({rows.count, trit::cuda::quantized_row_bytes(rows.features)}, torch::kChar, rows.x);
}
// q as the other operators and devices know it: rows of padded_in_features(K), here 16-byte aligned.
Tensor visible_q(const Tensor& q, std::int64_t in_features) {
  const std::int64_t width = padded_in_features(in_features);
  return width == q.size(1) ? q : q.narrow(1, 0, width);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_quant(const Tensor& x, const optional<Tensor>& norm_weight,
                                                      bool rms, double eps) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) >= 1,
              "trit::norm_quant: x must be [tokens, in_features >= 1], found ", x.sizes());
  const CUDAGuard guard(x.device());
  const Rows rows = rows_of(x);
  const Tensor q = empty_q(rows);
  const Tensor scale = empty({rows.count}, torch::kFloat, x);
  const Tensor rstd = at::empty_like(scale);
  quantize(rows, norm_weight, rms, eps, q.mutable_data_ptr<std::int8_t>(), scale.mutable_data_ptr<float>(),
           rstd.mutable_data_ptr<float>());
  const Tensor visible = visible_q(q, rows.features);
  return {visible, scale, rstd, visible.sum(1, /*keepdim=*/false, torch::kInt)};
}

Tensor absmean(const Tensor& weight, bool per_row, std::int64_t group) {
  check_group(group);
  check_weight(weight);
  const CUDAGuard guard(weight.device());
  const Tensor w = float_of(weight);
  const ScaleGranularity granularity = wanted_granularity(per_row, group);
  Tensor scale = empty(scale_shape(w.size(0), w.size(1), per_row, group), torch::kFloat, w);
  Tensor sums;
  if (granularity == ScaleGranularity::tensor) {
    sums =
        empty({static_cast<std::int64_t>(trit::cuda::absmean_workspace_bytes(w.size(0)))}, torch::kByte, w);
  }
  trit::cuda::absmean(w.const_data_ptr<float>(), w.size(0), w.size(1), granularity,
                      scale.mutable_data_ptr<float>(), sums.defined() ? sums.mutable_data_ptr() : nullptr,
                      cuda::stream_of(w), group);
  return scale;
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale, std::int64_t group) {
  check_weight(weight);
  cuda::check_device(scale, "the weight's scale", weight);
  const CUDAGuard guard(weight.device());
  const Tensor w = float_of(weight);
  const Tensor beta = float_of(scale);
  Tensor codes = empty({w.size(0), packed_row_bytes(w.size(1))}, torch::kByte, w);
  trit::cuda::ternarize_pack(w.const_data_ptr<float>(), w.size(0), w.size(1),
                             granularity_of(beta, w.size(0), w.size(1), group), beta.const_data_ptr<float>(),
                             codes.mutable_data_ptr<std::uint8_t>(), cuda::stream_of(w), group);
  return codes;
}

Tensor packed_linear_prepared(const Tensor& q, const Tensor& scale, const Tensor& /*q_sum*/,
                              const Packed& weight, const optional<Tensor>& bias, ScalarType dtype) {
  const std::int64_t in_features = weight->in_features();
  TORCH_CHECK(q.dim() == 2 && q.scalar_type() == torch::kChar &&
                  q.size(1) == padded_in_features(in_features) && scale.scalar_type() == torch::kFloat &&
                  scale.numel() == q.size(0),
              "trit::packed_linear: wanted q int8 [tokens, ", padded_in_features(in_features),
              "], scale float32 [tokens]; found ", q.toString(), " ", q.sizes(), ", ", scale.toString(), " ",
              scale.sizes());
  cuda::check_device(weight->codes(), "the packed weight", q);
  cuda::check_device(scale, "the scale", q);
  const CUDAGuard guard(q.device());
  const std::int64_t row_bytes = trit::cuda::quantized_row_bytes(in_features);
  const bool aligned = q.stride(1) == 1 && (q.stride(0) == row_bytes || q.size(0) <= 1) &&
                       q.storage_offset() % 16 == 0 && q.size(1) == row_bytes;
  // norm_quant's own output has rows of row_bytes with zeros at the end; anything else gets them here.
  const bool own = q.stride(1) == 1 && q.stride(0) == row_bytes && q.storage_offset() == 0 &&
                   q.storage().nbytes() >= static_cast<std::size_t>(q.size(0) * row_bytes);
  Tensor codes = q;
  if (!aligned && !own) {
    codes = at::zeros({q.size(0), row_bytes}, q.options());
    codes.narrow(1, 0, q.size(1)).copy_(q);
  }
  const Tensor scales = scale.contiguous();
  Tensor y = empty({q.size(0), weight->out_features()}, dtype, q);
  product(codes.const_data_ptr<std::int8_t>(), scales.const_data_ptr<float>(), *weight, bias,
          /*programmatic=*/false, q.size(0), y);
  return y;
}

Tensor packed_linear(const Tensor& q, const Tensor& scale, const Tensor& q_sum, const Tensor& codes,
                     const Tensor& weight_scale, std::int64_t in_features, const optional<Tensor>& bias,
                     ScalarType dtype, std::int64_t group) {
  check_codes(codes, in_features);
  return packed_linear_prepared(
      q, scale, q_sum,
      c10::make_intrusive<PackedWeight>(codes.contiguous(), float_of(weight_scale), in_features, group), bias,
      dtype);
}

// What a layer's call checks, and its output.
Tensor checked_output(const Tensor& x, const PackedWeight& packed) {
  TORCH_CHECK(x.is_cuda(), "trit::bit_linear: the weight is on ", packed.codes().device(), " and x on ",
              x.device(), ", wanted both on one device");
  cuda::check_device(packed.codes(), "the weight", x);
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == packed.in_features(), "trit::bit_linear: x must be [..., ",
              packed.in_features(), "], found ", x.sizes());
  data_type(x.scalar_type(), "x");
  c10::DimVector sizes(x.sizes());
  sizes.back() = packed.out_features();
  return empty(sizes, x.scalar_type(), x);
}

// The whole layer for inference: two launches and two allocations.
Tensor bit_linear_prepared(const Tensor& x, const Tensor& /*weight*/, const Packed& packed,
                           const optional<Tensor>& bias, const optional<Tensor>& norm_weight, bool rms,
                           double eps, std::string_view /*backward*/, bool /*stochastic_rounding*/) {
  Tensor y = checked_output(x, *packed);
  const CUDAGuard guard(x.device());
  const Rows rows = rows_of(x);
  const std::int64_t q_bytes = rows.count * trit::cuda::quantized_row_bytes(rows.features);
  const Tensor scratch = empty({q_bytes + rows.count * std::int64_t{sizeof(float)}}, torch::kChar, x);
  packed->cuda();  // as in forward_into: before norm_quant
  auto* const q = scratch.mutable_data_ptr<std::int8_t>();
  auto* const scale = reinterpret_cast<float*>(q + q_bytes);  // a multiple of 16 behind q
  quantize(rows, norm_weight, rms, eps, q, scale, nullptr);
  product(q, scale, *packed, bias, /*programmatic=*/true, rows.count, y);
  return y;
}

// Both launches of a forward pass that is recorded, into y, q, scale and rstd.
void forward_into(const PackedWeight& packed, const optional<Tensor>& bias,
                  const optional<Tensor>& norm_weight, bool rms, double eps, const Rows& rows, Tensor& y,
                  const Tensor& q, const Tensor& scale, const Tensor& rstd) {
  // Prepares the weight where it is not yet prepared. That launch must not come between norm_quant and the
  // product, which reads its weights before it waits for the preceding kernel.
  packed.cuda();
  quantize(rows, norm_weight, rms, eps, q.mutable_data_ptr<std::int8_t>(), scale.mutable_data_ptr<float>(),
           rstd.mutable_data_ptr<float>());
  product(q.const_data_ptr<std::int8_t>(), scale.const_data_ptr<float>(), packed, bias,
          /*programmatic=*/true, rows.count, y);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bit_linear_forward(const Tensor& x, const Packed& packed,
                                                              const optional<Tensor>& bias,
                                                              const optional<Tensor>& norm_weight, bool rms,
                                                              double eps) {
  Tensor y = checked_output(x, *packed);
  const CUDAGuard guard(x.device());
  const Rows rows = rows_of(x);
  const std::int64_t q_width = trit::cuda::quantized_row_bytes(rows.features);
  const auto q_bytes = static_cast<std::size_t>(rows.count * q_width);  // a multiple of 16
  const std::size_t scale_bytes = static_cast<std::size_t>(rows.count) * sizeof(float);
  const Tensor memory = empty({static_cast<std::int64_t>(q_bytes + 2 * scale_bytes)}, torch::kByte, x);
  const Tensor q = cuda::part_of(memory, 0, {rows.count, q_width}, torch::kChar);
  const Tensor scale = cuda::part_of(memory, q_bytes, {rows.count}, torch::kFloat);
  const Tensor rstd = cuda::part_of(memory, q_bytes + scale_bytes, {rows.count}, torch::kFloat);
  forward_into(*packed, bias, norm_weight, rms, eps, rows, y, q, scale, rstd);
  return {y, visible_q(q, rows.features), scale, rstd};
}

// The overload that packs the weight. It omits the sums of q, which only the CPU's kernels need.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> bit_linear_train(
    const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
    bool rms, double eps, bool per_row, std::int64_t group) {
  check_weight(weight);
  check_group(group);
  const CUDAGuard guard(weight.device());
  // Memory of their own: the prepared weight ends with the pass, and these do not.
  Tensor weight_scale =
      empty(scale_shape(weight.size(0), weight.size(1), per_row, group), torch::kFloat, weight);
  Tensor codes = empty({weight.size(0), packed_row_bytes(weight.size(1))}, torch::kByte, weight);
  const PackedWeight packed(codes, weight_scale, weight.size(1), group,
                            cuda::pack_into(weight, per_row, group, codes, weight_scale));
  Tensor y = checked_output(x, packed);
  const Rows rows = rows_of(x);
  const Tensor q = empty_q(rows);
  Tensor scale = empty({rows.count}, torch::kFloat, x);
  Tensor rstd = at::empty_like(scale);
  forward_into(packed, bias, norm_weight, rms, eps, rows, y, q, scale, rstd);
  return {y, visible_q(q, rows.features), scale, rstd, codes, weight_scale};
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CUDA, m) {
  register_packed_weight_class();
  m.impl("norm_quant", norm_quant);
  m.impl("absmean", absmean);
  m.impl("ternarize_pack", ternarize_pack);
  m.impl("packed_linear", packed_linear);
  m.impl("packed_linear.prepared", packed_linear_prepared);
  m.impl("bit_linear_forward", bit_linear_forward);
  m.impl("bit_linear_train", bit_linear_train);
  m.impl("bit_linear.prepared", bit_linear_prepared);
}

}  // namespace trit::torch_layer

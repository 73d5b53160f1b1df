// SPDX-License-Identifier: MIT
//
// The operators on a GPU: each checks its tensors and launches kernels of trit/cuda.h and
// torch/cuda/kernels.h on the current stream. Nothing waits for the GPU, and memory is LibTorch's, so that
// all of it may be captured into a CUDA graph.
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>

#include "torch/arguments.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/prepared_weight.h"
#include "torch/ops.h"
#include "trit/cuda_backward.h"
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
  trit::cuda::norm_quant(cuda::device_of(rows.x),
                         {.x = rows.x.const_data_ptr(),
                          .x_type = data_type(rows.x.scalar_type(), "x"),
                          .tokens = rows.count,
                          .in_features = rows.features,
                          .x_stride = rows.stride,
                          .norm = rms ? Norm::rms : Norm::none,
                          .norm_weight = pointer_or_null(weight),
                          .eps = static_cast<float>(eps),
                          .q = q,
                          .scale = scale,
                          .rstd = rstd},
                         cuda::stream_of(rows.x));
}

// y = epilogue(q · tᵀ). `programmatic`: the kernel in front of it is the norm_quant that makes q, so that
// nothing else of its operands is still being written.
void product(const std::int8_t* q, const float* scale, const PackedWeight& weight,
             const optional<Tensor>& bias, bool programmatic, std::int64_t tokens, Tensor& y) {
  const auto offset = float_of(bias);
  if (offset) {
    cuda::check_device(*offset, "the bias", y);
    TORCH_CHECK(offset->numel() == weight.out_features(), "trit::packed_linear: the bias must be [",
                weight.out_features(), "], found ", offset->sizes());
  }
  const trit::cuda::Device& device = cuda::device_of(y);
  const Tensor workspace = cuda::workspace(
      y, trit::cuda::product_workspace_bytes(device, tokens, weight.out_features(), weight.in_features()));
  trit::cuda::product(device,
                      {.weights = weight.cuda().data(),
                       .out_features = weight.out_features(),
                       .in_features = weight.in_features(),
                       .q = q,
                       .token_scale = scale,
                       .tokens = tokens,
                       .weight_scale = weight.scale().const_data_ptr<float>(),
                       .granularity = granularity_of(weight.scale(), weight.out_features()),
                       .bias = pointer_or_null(offset),
                       .y_type = data_type(y.scalar_type(), "y"),
                       .y = y.mutable_data_ptr(),
                       .workspace = workspace.defined() ? workspace.mutable_data_ptr() : nullptr,
                       .programmatic = programmatic},
                      cuda::stream_of(y));
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

Tensor absmean(const Tensor& weight, bool per_row) {
  check_weight(weight);
  const CUDAGuard guard(weight.device());
  const Tensor w = float_of(weight);
  const std::int64_t out_features = w.size(0);
  Tensor scale = empty({per_row ? out_features : 1}, torch::kFloat, w);
  const auto bytes = static_cast<std::int64_t>(trit::cuda::absmean_workspace_bytes(out_features));
  const Tensor sums = per_row ? Tensor() : empty({bytes}, torch::kByte, w);
  trit::cuda::absmean(w.const_data_ptr<float>(), out_features, w.size(1),
                      per_row ? ScaleGranularity::row : ScaleGranularity::tensor,
                      scale.mutable_data_ptr<float>(), per_row ? nullptr : sums.mutable_data_ptr(),
                      cuda::stream_of(w));
  return scale;
}

Tensor ternarize_pack(const Tensor& weight, const Tensor& scale) {
  check_weight(weight);
  cuda::check_device(scale, "the weight's scale", weight);
  const CUDAGuard guard(weight.device());
  const Tensor w = float_of(weight);
  const Tensor beta = float_of(scale);
  Tensor codes = empty({w.size(0), packed_row_bytes(w.size(1))}, torch::kByte, w);
  trit::cuda::ternarize_pack(w.const_data_ptr<float>(), w.size(0), w.size(1), granularity_of(beta, w.size(0)),
                             beta.const_data_ptr<float>(), codes.mutable_data_ptr<std::uint8_t>(),
                             cuda::stream_of(w));
  return codes;
}

Tensor dequantize(const Tensor& codes, const Tensor& scale, std::int64_t in_features, ScalarType dtype) {
  check_codes(codes, in_features);
  cuda::check_device(scale, "the weight's scale", codes);
  const CUDAGuard guard(codes.device());
  const Tensor stored = codes.contiguous();
  const Tensor beta = float_of(scale);
  Tensor w = empty({codes.size(0), in_features}, torch::kFloat, codes);
  cuda::dequantize({.codes = stored.const_data_ptr<std::uint8_t>(),
                    .out_features = codes.size(0),
                    .in_features = in_features,
                    .scale = beta.const_data_ptr<float>(),
                    .per_row = granularity_of(beta, codes.size(0)) == ScaleGranularity::row,
                    .first_column = 0,
                    .columns = in_features,
                    .w_type = DataType::float32,
                    .w = w.mutable_data_ptr()},
                   cuda::stream_of(codes));
  return w.to(dtype);
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
                     ScalarType dtype) {
  check_codes(codes, in_features);
  return packed_linear_prepared(
      q, scale, q_sum,
      c10::make_intrusive<PackedWeight>(codes.contiguous(), float_of(weight_scale), in_features), bias,
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
                           double eps) {
  Tensor y = checked_output(x, *packed);
  const CUDAGuard guard(x.device());
  const Rows rows = rows_of(x);
  const std::int64_t q_bytes = rows.count * trit::cuda::quantized_row_bytes(rows.features);
  const Tensor scratch = empty({q_bytes + rows.count * std::int64_t{sizeof(float)}}, torch::kChar, x);
  packed->cuda();  // as in forward_into
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

// The overload that packs by itself. The sums of q, which the CPU's kernels need, are not made.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> bit_linear_train(
    const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
    bool rms, double eps, bool per_row) {
  check_weight(weight);
  const CUDAGuard guard(weight.device());
  Tensor weight_scale = absmean(weight, per_row);
  Tensor codes = ternarize_pack(weight, weight_scale);
  const PackedWeight packed(codes, weight_scale, weight.size(1));
  Tensor y = checked_output(x, packed);
  const Rows rows = rows_of(x);
  const Tensor q = empty_q(rows);
  Tensor scale = empty({rows.count}, torch::kFloat, x);
  Tensor rstd = at::empty_like(scale);
  forward_into(packed, bias, norm_weight, rms, eps, rows, y, q, scale, rstd);
  return {y, visible_q(q, rows.features), scale, rstd, codes, weight_scale};
}

// grad * scale, computed in float32 and rounded once to grad's type, in one pass.
Tensor scaled_gradient(const Tensor& grad, const Tensor& scale) {
  Tensor scaled = at::empty(grad.sizes(), grad.options());
  return at::mul_out(scaled, grad, scale);
}

// dX from the 2-bit weights on compute capability 9.0; undefined where that kernel does not take the
// gradient.
Tensor backward_input_from_codes(const Tensor& grad, const Tensor& codes, const Tensor& beta,
                                 std::int64_t in_features) {
  const trit::cuda::Device& device = cuda::device_of(grad);
  const std::int64_t out_features = codes.size(0);
  // Scales per row belong to what the product sums over, so they go into dY.
  const bool per_row = granularity_of(beta, out_features) == ScaleGranularity::row;
  const Tensor rows = (per_row ? scaled_gradient(grad, beta) : grad).contiguous();
  Tensor grad_x = empty({grad.size(0), in_features}, grad.scalar_type(), grad);
  const Tensor weights =
      empty({static_cast<std::int64_t>(trit::cuda::transposed_weight_bytes(out_features, in_features))},
            torch::kByte, grad);
  const trit::cuda::GradientInput args{.grad = rows.const_data_ptr(),
                                       .type = data_type(grad.scalar_type(), "grad"),
                                       .tokens = grad.size(0),
                                       .out_features = out_features,
                                       .in_features = in_features,
                                       .weights = weights.const_data_ptr<std::uint8_t>(),
                                       .scale = per_row ? nullptr : beta.const_data_ptr<float>(),
                                       .grad_x = grad_x.mutable_data_ptr()};
  if (!trit::cuda::gradient_input_fits(device, args)) {
    return {};
  }
  trit::cuda::prepare_transposed(codes.const_data_ptr<std::uint8_t>(), out_features, in_features,
                                 weights.mutable_data_ptr<std::uint8_t>(), cuda::stream_of(grad));
  trit::cuda::gradient_input(device, args, cuda::stream_of(grad));
  return grad_x;
}

// dX for every other type and GPU: tiles of the weight in grad's type, multiplied by LibTorch.
Tensor backward_input_from_tiles(const Tensor& grad, const Tensor& codes, const Tensor& beta,
                                 std::int64_t in_features) {
  const std::int64_t out_features = codes.size(0);
  // beta goes into the small operand, so the tile holds -1, 0, +1, exact in every type.
  const Tensor scaled = scaled_gradient(grad, beta);
  Tensor grad_x = at::empty({grad.size(0), in_features}, grad.options());
  // Tiles of 2^24 weights: 32 MiB of half precision stay in the L2 of a large GPU, and no float copy of a
  // large weight exists. Multiples of 64 columns start at a byte of the codes and keep rows aligned.
  constexpr std::int64_t kTileWeights = std::int64_t{1} << 24;
  const std::int64_t most = std::max<std::int64_t>(kTileWeights / out_features / 64 * 64, 64);
  for (std::int64_t first = 0; first < in_features; first += most) {
    const std::int64_t columns = std::min(most, in_features - first);
    Tensor tile = at::empty({out_features, columns}, grad.options());
    cuda::dequantize({.codes = codes.const_data_ptr<std::uint8_t>(),
                      .out_features = out_features,
                      .in_features = in_features,
                      .scale = nullptr,
                      .per_row = false,
                      .first_column = first,
                      .columns = columns,
                      .w_type = data_type(grad.scalar_type(), "grad"),
                      .w = tile.mutable_data_ptr()},
                     cuda::stream_of(grad));
    Tensor target = grad_x.narrow(1, first, columns);
    at::mm_out(target, scaled, tile);
  }
  return grad_x;
}

Tensor linear_backward_input(const Tensor& grad, const Tensor& codes, const Tensor& weight_scale,
                             std::int64_t in_features) {
  check_codes(codes, in_features);
  const std::int64_t out_features = codes.size(0);
  TORCH_CHECK(grad.dim() == 2 && grad.size(1) == out_features,
              "trit::linear_backward_input: grad must be [tokens, ", out_features, "], found ", grad.sizes());
  cuda::check_device(codes, "the packed weight", grad);
  cuda::check_device(weight_scale, "the weight's scale", grad);
  data_type(grad.scalar_type(), "grad");
  const CUDAGuard guard(grad.device());
  const Tensor stored = codes.contiguous();
  const Tensor beta = float_of(weight_scale);
  const Tensor grad_x = backward_input_from_codes(grad, stored, beta, in_features);
  return grad_x.defined() ? grad_x : backward_input_from_tiles(grad, stored, beta, in_features);
}

Tensor linear_backward_weight(const Tensor& grad, const Tensor& q, const Tensor& scale,
                              std::int64_t in_features) {
  TORCH_CHECK(grad.dim() == 2 && q.dim() == 2 && grad.size(0) == q.size(0) && scale.numel() == q.size(0) &&
                  q.size(1) == padded_in_features(in_features) && q.scalar_type() == torch::kChar,
              "trit::linear_backward_weight: wanted grad [tokens, out_features], q int8 [tokens, ",
              padded_in_features(in_features), "], scale [tokens]; found ", grad.sizes(), ", ", q.toString(),
              " ", q.sizes(), ", ", scale.sizes());
  cuda::check_device(q, "q", grad);
  cuda::check_device(scale, "scale", grad);
  const CUDAGuard guard(grad.device());
  const Tensor codes = q.stride(1) == 1 && q.stride(0) >= in_features ? q : q.contiguous();
  const Tensor s = float_of(scale).contiguous();
  // s belongs to what the product sums over, so it is part of an operand; s q in grad's type, rounded once.
  Tensor x = empty({q.size(0), in_features}, grad.scalar_type(), grad);
  trit::cuda::dequantize_rows({.q = codes.const_data_ptr<std::int8_t>(),
                               .row_bytes = codes.stride(0),
                               .scale = s.const_data_ptr<float>(),
                               .tokens = q.size(0),
                               .in_features = in_features,
                               .type = data_type(grad.scalar_type(), "grad"),
                               .x = x.mutable_data_ptr()},
                              cuda::stream_of(grad));
  return at::mm(grad.t(), x);
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const optional<Tensor>& weight, double eps) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) >= 1, "trit::rms_norm: x must be [..., features >= 1], found ",
              x.sizes());
  const DataType type = data_type(x.scalar_type(), "x");
  const std::int64_t features = x.size(-1);
  const CUDAGuard guard(x.device());
  const auto g = float_of(weight);
  if (g) {
    cuda::check_device(*g, "the norm's weight", x);
    TORCH_CHECK(g->numel() == features, "trit::rms_norm: the weight must be [", features, "], found ",
                g->sizes());
  }
  const Tensor rows = x.contiguous();
  Tensor y = at::empty_like(rows);
  Tensor rstd = empty(x.sizes().slice(0, static_cast<std::size_t>(x.dim() - 1)), torch::kFloat, x);
  cuda::rms_norm({.x = rows.const_data_ptr(),
                  .type = type,
                  .rows = rstd.numel(),
                  .features = features,
                  .weight = pointer_or_null(g),
                  .eps = static_cast<float>(eps),
                  .y = y.mutable_data_ptr(),
                  .rstd = rstd.mutable_data_ptr<float>()},
                 cuda::stream_of(x));
  return {y, rstd};
}

// The sums of the weight's gradient, one part after the other: their order depends on the shape alone.
struct NormGradients {
  Tensor x;        // undefined if not wanted
  Tensor partial;  // float32 [parts, features], undefined if not wanted
};

// In one pass over both, for 16-bit rows that its vectors fit; false otherwise.
bool norm_backward_in_one_pass(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                               const optional<Tensor>& weight, std::array<bool, 2> wanted,
                               NormGradients& gradients) {
  const std::int64_t features = x.size(-1);
  const std::int64_t rows = rstd.numel();
  const std::int64_t parts = trit::cuda::norm_backward_parts(rows);
  const Tensor grad_x = wanted[0] ? at::empty_like(x) : Tensor();
  const Tensor partial = wanted[1] ? empty({parts, features}, torch::kFloat, x) : Tensor();
  const trit::cuda::NormBackward args{
      .grad = grad.const_data_ptr(),
      .x = x.const_data_ptr(),
      .type = data_type(x.scalar_type(), "x"),
      .tokens = rows,
      .in_features = features,
      .norm_weight = pointer_or_null(weight),
      .rstd = rstd.const_data_ptr<float>(),
      .grad_x = wanted[0] ? grad_x.mutable_data_ptr() : nullptr,
      .grad_norm_weight = wanted[1] ? partial.mutable_data_ptr<float>() : nullptr,
      .parts = parts};
  if (!trit::cuda::norm_backward_fits(args)) {
    return false;
  }
  trit::cuda::norm_backward(args, cuda::stream_of(x));
  gradients = {grad_x, partial};
  return true;
}

NormGradients norm_backward_in_two_passes(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                          const optional<Tensor>& weight, std::array<bool, 2> wanted) {
  const std::int64_t features = x.size(-1);
  const std::int64_t rows = rstd.numel();
  const std::int64_t parts = std::clamp<std::int64_t>(rows / 8, 1, 64);
  NormGradients gradients{wanted[0] ? at::empty_like(x) : Tensor(),
                          wanted[1] ? empty({parts, features}, torch::kFloat, x) : Tensor()};
  cuda::rms_norm_backward({.grad = grad.const_data_ptr(),
                           .x = x.const_data_ptr(),
                           .type = data_type(x.scalar_type(), "x"),
                           .rows = rows,
                           .features = features,
                           .weight = pointer_or_null(weight),
                           .rstd = rstd.const_data_ptr<float>(),
                           .grad_x = wanted[0] ? gradients.x.mutable_data_ptr() : nullptr,
                           .grad_weight = wanted[1] ? gradients.partial.mutable_data_ptr<float>() : nullptr,
                           .parts = parts},
                          cuda::stream_of(x));
  return gradients;
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& rstd,
                                             const optional<Tensor>& weight, std::array<bool, 2> mask) {
  const std::int64_t features = x.size(-1);
  const std::int64_t rows = rstd.numel();
  TORCH_CHECK(grad.sizes() == x.sizes() && rows * features == x.numel(), "trit::rms_norm_backward: grad ",
              grad.sizes(), ", x ", x.sizes(), " and rstd ", rstd.sizes(), " do not fit together");
  cuda::check_device(grad, "grad", x);
  const CUDAGuard guard(x.device());
  // One type for both: the wider one where they differ.
  const ScalarType scalar = at::promote_types(grad.scalar_type(), x.scalar_type());
  const Tensor u = grad.to(scalar).contiguous();
  const Tensor values = x.to(scalar).contiguous();
  const Tensor r = float_of(rstd);
  const auto g = float_of(weight);
  const std::array<bool, 2> wanted{mask[0], mask[1] && g.has_value()};
  NormGradients gradients;
  if (!norm_backward_in_one_pass(u, values, r, g, wanted, gradients)) {
    gradients = norm_backward_in_two_passes(u, values, r, g, wanted);
  }
  Tensor grad_weight;
  if (wanted[1]) {
    // wanted says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    grad_weight = gradients.partial.sum(0, /*keepdim=*/false, weight->scalar_type());
  }
  return {mask[0] ? gradients.x.to(x.scalar_type()) : gradients.x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CUDA, m) {
  register_packed_weight_class();
  m.impl("norm_quant", norm_quant);
  m.impl("absmean", absmean);
  m.impl("ternarize_pack", ternarize_pack);
  m.impl("dequantize", dequantize);
  m.impl("packed_linear", packed_linear);
  m.impl("packed_linear.prepared", packed_linear_prepared);
  m.impl("bit_linear_forward", bit_linear_forward);
  m.impl("bit_linear_train", bit_linear_train);
  m.impl("bit_linear.prepared", bit_linear_prepared);
  m.impl("linear_backward_input", linear_backward_input);
  m.impl("linear_backward_weight", linear_backward_weight);
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
}

}  // namespace trit::torch_layer

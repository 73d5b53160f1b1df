// SPDX-License-Identifier: MIT
//
// RMSNorm and its backward on a GPU.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>

#include "torch/arguments.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/launch_context.h"
#include "torch/ops.h"
#include "trit/cuda_backward.h"

namespace trit::torch_layer {
namespace {

using c10::cuda::CUDAGuard;
using cuda::empty;
using std::optional;
using torch::ScalarType;
using torch::Tensor;

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
  check_rms_norm_backward(grad, x, rstd);
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
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
}

}  // namespace trit::torch_layer

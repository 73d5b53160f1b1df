// SPDX-License-Identifier: MIT
//
// RMSNorm and its backward on a GPU.
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "torch/arguments.h"
#include "torch/cuda/kernels.h"
#include "torch/cuda/launch_context.h"
#include "torch/cuda/layer.h"
#include "torch/ops.h"

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
  const bool weight_wanted = mask[1] && g.has_value();
  trit::cuda::NormBackward args{
      u.const_data_ptr(), values.const_data_ptr(), data_type(scalar, "x"),   r.numel(),
      x.size(-1),         pointer_or_null(g),      r.const_data_ptr<float>()};
  // The sums of the weight's gradient, one part after the other: their order depends on the shape alone.
  args.parts = cuda::norm_backward_parts(args);
  const Tensor grad_x = mask[0] ? at::empty_like(values) : Tensor();
  const Tensor partial = weight_wanted ? empty({args.parts, x.size(-1)}, torch::kFloat, x) : Tensor();
  args.grad_x = mask[0] ? grad_x.mutable_data_ptr() : nullptr;
  args.grad_norm_weight = weight_wanted ? partial.mutable_data_ptr<float>() : nullptr;
  cuda::norm_backward(cuda::device_of(x), args, cuda::stream_of(x));
  Tensor grad_weight;
  if (weight_wanted) {
    // it says so: NOLINTNEXTLINE(bugprone-unchecked-optional-access)
    grad_weight = partial.sum(0, /*keepdim=*/false, weight->scalar_type());
  }
  return {mask[0] ? grad_x.to(x.scalar_type()) : grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, CUDA, m) {
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
}

}  // namespace trit::torch_layer

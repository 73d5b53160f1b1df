// SPDX-License-Identifier: MIT
//
// Gradients and autocast. Straight-through: round and clamp have gradient one and scales are constant, so
// with xn = x * r * g the layer's derivative is that of y = xn · (beta t)ᵀ + b:
//   dxn = dY · (beta t)      dW = dYᵀ · (s q)      db = sum of dY's rows
// and dx, dg follow from dxn by the norm's true Jacobian. Saved: q (1 byte an activation), s, the packed
// weight, and for the norm x by reference, g and r. W itself is not needed.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/library.h>

#include "torch/ops.h"

namespace trit::torch_layer {
namespace {

using std::optional;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Packed = c10::intrusive_ptr<PackedWeight>;

optional<Tensor> defined_or_none(const Tensor& tensor) {
  return tensor.defined() ? optional<Tensor>(tensor) : std::nullopt;
}
Tensor value_or_undefined(const optional<Tensor>& tensor) { return tensor ? *tensor : Tensor(); }

// The backward is not differentiable itself. With create_graph its results carry a node that says so when a
// second backward reaches it, rather than being constants silently.
variable_list once_differentiable(const char* name, variable_list gradients) {
  if (!torch::GradMode::is_enabled()) {
    return gradients;
  }
  const auto error = std::make_shared<torch::autograd::DelayedError>(
      std::string(name) +
          ": the gradient is straight-through and cannot be differentiated again (double backward)",
      static_cast<std::int64_t>(gradients.size()));
  variable_list detached;
  for (const Tensor& gradient : gradients) {
    detached.push_back(gradient.defined() ? gradient.detach().requires_grad_() : gradient);
  }
  return (*error)(std::move(detached));
}

// One function for both overloads of trit::bit_linear: `packed` is null in the one that packs by itself.
class BitLinearFunction : public torch::autograd::Function<BitLinearFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Packed& packed,
                        const optional<Tensor>& bias, const optional<Tensor>& norm_weight, bool rms,
                        double eps, bool per_row) {
    const at::AutoDispatchBelowADInplaceOrView below;
    TORCH_CHECK(weight.dim() == 2 && x.dim() >= 1 && x.sym_size(-1) == weight.sym_size(1),
                "trit::bit_linear: x ", x.sym_sizes(), " does not fit the weight ", weight.sym_sizes());
    const auto in_features = weight.sym_size(1);
    const Tensor scale = packed ? packed->scale() : ops::absmean(weight, per_row);
    const Tensor codes = packed ? packed->codes() : ops::ternarize_pack(weight, scale);
    const auto quantized =
        packed ? ops::bit_linear_forward(x, packed, bias, norm_weight, rms, eps)
               : forward_unprepared(x, codes, scale, in_features, bias, norm_weight, rms, eps);
    context->save_for_backward({rms ? x : Tensor(), rms ? value_or_undefined(norm_weight) : Tensor(),
                                quantized.q, quantized.scale, rms ? quantized.rstd : Tensor(), codes, scale});
    context->saved_data["in_features"] = in_features;
    context->saved_data["x_sizes"] = x.sym_sizes();
    context->saved_data["weight_type"] = weight.scalar_type();
    context->saved_data["bias_type"] = bias ? bias->scalar_type() : weight.scalar_type();
    context->saved_data["bias"] = bias.has_value();
    context->saved_data["rms"] = rms;
    context->saved_data["norm_weight"] = norm_weight.has_value();
    return quantized.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& outputs) {
    variable_list gradients = [&] {
      const torch::NoGradGuard no_grad;
      return gradients_of(context, outputs[0]);
    }();
    return once_differentiable("trit::bit_linear", std::move(gradients));
  }

 private:
  static ops::BitLinearResult forward_unprepared(const Tensor& x, const Tensor& codes, const Tensor& scale,
                                                 const c10::SymInt& in_features, const optional<Tensor>& bias,
                                                 const optional<Tensor>& norm_weight, bool rms, double eps) {
    const auto quantized = ops::norm_quant(x.reshape_symint({-1, in_features}), norm_weight, rms, eps);
    const Tensor y = ops::packed_linear(quantized, codes, scale, in_features, bias, x.scalar_type());
    auto sizes = x.sym_sizes().vec();
    sizes.back() = y.sym_size(1);
    return {y.reshape_symint(sizes), quantized.q, quantized.scale, quantized.rstd};
  }

  // Gradients of x, weight, packed, bias, norm_weight, rms, eps, per_row.
  static variable_list gradients_of(AutogradContext* context, const Tensor& grad_y) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &norm_weight = saved[1], &q = saved[2], &scale = saved[3], &rstd = saved[4];
    const Tensor &codes = saved[5], &weight_scale = saved[6];
    const c10::SymInt in_features = context->saved_data["in_features"].toSymInt();
    const bool rms = context->saved_data["rms"].toBool();
    // Edges are numbered over the tensors that were given: x, weight, bias?, norm_weight?.
    std::size_t edge = 2;
    const bool bias_wanted = context->saved_data["bias"].toBool() && context->needs_input_grad(edge++);
    const bool norm_weight_wanted =
        context->saved_data["norm_weight"].toBool() && context->needs_input_grad(edge++);
    const bool x_wanted = context->needs_input_grad(0);

    const Tensor grad = grad_y.reshape_symint({-1, codes.sym_size(0)});
    variable_list gradients(8);
    if (context->needs_input_grad(1)) {
      gradients[1] = ops::linear_backward_weight(grad, q, scale, in_features)
                         .to(context->saved_data["weight_type"].toScalarType());
    }
    if (bias_wanted) {
      gradients[3] = grad.sum({0}, /*keepdim=*/false, context->saved_data["bias_type"].toScalarType());
    }
    if (x_wanted || (rms && norm_weight_wanted)) {
      Tensor grad_x = ops::linear_backward_input(grad, codes, weight_scale, in_features);
      if (rms) {
        std::tie(grad_x, gradients[4]) =
            ops::rms_norm_backward(grad_x, x.reshape_symint({-1, in_features}), rstd,
                                   defined_or_none(norm_weight), {x_wanted, norm_weight_wanted});
      }
      if (x_wanted) {
        gradients[0] = grad_x.reshape_symint(context->saved_data["x_sizes"].toSymIntVector());
      }
    }
    return gradients;
  }
};

class RMSNormFunction : public torch::autograd::Function<RMSNormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& x, const optional<Tensor>& weight,
                               double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [y, rstd] = ops::rms_norm(x, weight, eps);
    context->save_for_backward({x, value_or_undefined(weight), rstd});
    context->mark_non_differentiable({rstd});
    return {y, rstd};
  }

  static variable_list backward(AutogradContext* context, const variable_list& outputs) {
    variable_list gradients = [&]() -> variable_list {
      const torch::NoGradGuard no_grad;
      const auto saved = context->get_saved_variables();
      auto [grad_x, grad_weight] = ops::rms_norm_backward(
          outputs[0], saved[0], saved[2], defined_or_none(saved[1]),
          {context->needs_input_grad(0), saved[1].defined() && context->needs_input_grad(1)});
      return {grad_x, grad_weight, Tensor()};
    }();
    return once_differentiable("trit::rms_norm", std::move(gradients));
  }
};

// Whether a call must be recorded. Building a node costs a third of the host's time of a call.
bool is_recorded(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                 const optional<Tensor>& norm_weight) {
  const auto differentiable = [](const Tensor& tensor) {
    return (torch::GradMode::is_enabled() && tensor.requires_grad()) || tensor._fw_grad(0).defined();
  };
  return differentiable(x) || differentiable(weight) || (bias && differentiable(*bias)) ||
         (norm_weight && differentiable(*norm_weight));
}

Tensor bit_linear_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row) {
  return BitLinearFunction::apply(x, weight, Packed(), bias, norm_weight, rms, eps, per_row);
}

Tensor bit_linear_prepared_autograd(const Tensor& x, const Tensor& weight, const Packed& packed,
                                    const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                    bool rms, double eps) {
  if (!is_recorded(x, weight, bias, norm_weight)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::bit_linear(x, weight, packed, bias, norm_weight, rms, eps);
  }
  return BitLinearFunction::apply(x, weight, packed, bias, norm_weight, rms, eps, false);
}

std::tuple<Tensor, Tensor> rms_norm_autograd(const Tensor& x, const optional<Tensor>& weight, double eps) {
  const auto outputs = RMSNormFunction::apply(x, weight, eps);
  return {outputs[0], outputs[1]};
}

// Autocast: x alone becomes half, and with it y. W, g, b and beta stay as they are (float32).
template <c10::DispatchKey key, c10::DeviceType device>
Tensor bit_linear_autocast(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  return ops::bit_linear(at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), x, device),
                         weight, bias, norm_weight, rms, eps, per_row);
}

template <c10::DispatchKey key, c10::DeviceType device>
Tensor bit_linear_prepared_autocast(const Tensor& x, const Tensor& weight, const Packed& packed,
                                    const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                    bool rms, double eps) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  return ops::bit_linear(at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), x, device),
                         weight, packed, bias, norm_weight, rms, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(trit, Autograd, m) {
  register_packed_weight_class();
  m.impl("bit_linear", bit_linear_autograd);
  m.impl("bit_linear.prepared", bit_linear_prepared_autograd);
  m.impl("rms_norm", rms_norm_autograd);
  // The parts of the layer: differentiating one alone is an error, not a silent zero.
  for (const char* name :
       {"norm_quant", "absmean", "ternarize_pack", "dequantize", "packed_linear", "packed_linear.prepared",
        "bit_linear_forward", "linear_backward_input", "linear_backward_weight", "rms_norm_backward"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

TORCH_LIBRARY_IMPL(trit, AutocastCPU, m) {
  register_packed_weight_class();
  m.impl("bit_linear", bit_linear_autocast<c10::DispatchKey::AutocastCPU, c10::DeviceType::CPU>);
  m.impl("bit_linear.prepared",
         bit_linear_prepared_autocast<c10::DispatchKey::AutocastCPU, c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(trit, AutocastCUDA, m) {
  register_packed_weight_class();
  m.impl("bit_linear", bit_linear_autocast<c10::DispatchKey::AutocastCUDA, c10::DeviceType::CUDA>);
  m.impl("bit_linear.prepared",
         bit_linear_prepared_autocast<c10::DispatchKey::AutocastCUDA, c10::DeviceType::CUDA>);
}

}  // namespace trit::torch_layer

// SPDX-License-Identifier: MIT
//
// Gradients and autocast. Straight-through: round and clamp have gradient one and scales are constant, so
// with xn = x * r * g the layer's derivative is that of y = xn · (beta t)ᵀ + b:
//   dxn = dY · (beta t)      dW = dYᵀ · (s q)      db = sum of dY's rows
// (in int8 where the layer asks for it),
// and dx, dg follow from dxn by the Jacobian of the norm. Saved: q (1 byte per activation), s, the packed
// weight, and for the norm x by reference, g and r. W itself is not needed.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
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

// The backward is not differentiable. With create_graph its results carry a node that throws if a second
// backward reaches it; otherwise they would silently be constants.
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

void check_shapes(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2 && x.dim() >= 1 && x.sym_size(-1) == weight.sym_size(1),
              "trit::bit_linear: x ", x.sym_sizes(), " does not fit the weight ", weight.sym_sizes());
}

// What a backward needs of its forward.
struct Saved {
  Tensor x, norm_weight;  // with an RMSNorm only; g may be undefined
  Tensor q, scale, rstd;
  Packed packed;  // or null, and the codes by themselves
  Tensor codes, weight_scale;
  std::int64_t group;
  c10::SymInt in_features;
  c10::SymIntArrayRef x_sizes;
  torch::ScalarType weight_type, bias_type;
  bool rms;
  BackwardKind backward;
};
struct Wanted {
  bool x, weight, bias, norm_weight;
};
struct Gradients {
  Tensor x, weight, bias, norm_weight;
};

Gradients gradients_of(const Saved& saved, const Wanted& wanted, const Tensor& grad_y) {
  const Tensor grad = grad_y.reshape_symint({-1, saved.codes.sym_size(0)});
  Gradients gradients;
  const bool input = wanted.x || (saved.rms && wanted.norm_weight);
  const bool input_int8 = input && saved.backward.products != nn::Backward::exact;
  const bool weight_int8 = wanted.weight && saved.backward.products == nn::Backward::int8_all;
  Tensor grad_x;
  if (input_int8 || weight_int8) {
    const std::array<bool, 2> mask{input_int8, weight_int8};
    const bool stochastic = saved.backward.stochastic_rounding;
    std::tie(grad_x, gradients.weight) =
        saved.packed != nullptr
            ? ops::linear_backward_int8(grad, saved.q, saved.scale, saved.packed, saved.weight_type, mask,
                                        stochastic)
            : ops::linear_backward_int8(grad, saved.q, saved.scale, saved.codes, saved.weight_scale,
                                        saved.in_features, saved.weight_type, mask, stochastic);
  }
  if (wanted.weight && !weight_int8) {
    gradients.weight =
        ops::linear_backward_weight(grad, saved.q, saved.scale, saved.in_features, saved.weight_type);
  }
  if (wanted.bias) {
    gradients.bias = grad.sum({0}, /*keepdim=*/false, saved.bias_type);
  }
  if (input && !input_int8) {
    grad_x = saved.packed != nullptr ? ops::linear_backward_input(grad, saved.packed)
                                     : ops::linear_backward_input(grad, saved.codes, saved.weight_scale,
                                                                  saved.in_features, saved.group);
  }
  if (input) {
    if (saved.rms) {
      std::tie(grad_x, gradients.norm_weight) =
          ops::rms_norm_backward(grad_x, saved.x.reshape_symint({-1, saved.in_features}), saved.rstd,
                                 defined_or_none(saved.norm_weight), {wanted.x, wanted.norm_weight});
    }
    if (wanted.x) {
      gradients.x = grad_x.reshape_symint(saved.x_sizes);
    }
  }
  return gradients;
}

// trit::bit_linear, the overload that packs the weight: the one that tracing and compiling see.
class BitLinearFunction : public torch::autograd::Function<BitLinearFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const optional<Tensor>& bias, const optional<Tensor>& norm_weight, bool rms,
                        double eps, bool per_row, const BackwardKind& backward, std::int64_t group) {
    const at::AutoDispatchBelowADInplaceOrView below;
    check_shapes(x, weight);
    check_backward(backward.products, group);
    const auto result = ops::bit_linear_train(x, weight, bias, norm_weight, rms, eps, per_row, group);
    context->save_for_backward({rms ? x : Tensor(), rms ? value_or_undefined(norm_weight) : Tensor(),
                                result.q, result.scale, rms ? result.rstd : Tensor(), result.codes,
                                result.weight_scale});
    context->saved_data["group"] = group;
    context->saved_data["in_features"] = weight.sym_size(1);
    context->saved_data["x_sizes"] = x.sym_sizes();
    context->saved_data["weight_type"] = weight.scalar_type();
    context->saved_data["bias_type"] = bias ? bias->scalar_type() : weight.scalar_type();
    context->saved_data["bias"] = bias.has_value();
    context->saved_data["rms"] = rms;
    context->saved_data["norm_weight"] = norm_weight.has_value();
    context->saved_data["backward"] = static_cast<std::int64_t>(backward.products);
    context->saved_data["stochastic_rounding"] = backward.stochastic_rounding;
    return result.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& outputs) {
    variable_list gradients = [&]() -> variable_list {
      const torch::NoGradGuard no_grad;
      const auto saved = context->get_saved_variables();
      auto& data = context->saved_data;
      // Edges count only the tensors that were given: x, weight, bias?, norm_weight?.
      std::size_t edge = 2;
      const bool bias = data["bias"].toBool() && context->needs_input_grad(edge++);
      const bool norm_weight = data["norm_weight"].toBool() && context->needs_input_grad(edge++);
      const std::vector<c10::SymInt> x_sizes = data["x_sizes"].toSymIntVector();
      auto found = gradients_of({.x = saved[0],
                                 .norm_weight = saved[1],
                                 .q = saved[2],
                                 .scale = saved[3],
                                 .rstd = saved[4],
                                 .packed = {},
                                 .codes = saved[5],
                                 .weight_scale = saved[6],
                                 .group = data["group"].toInt(),
                                 .in_features = data["in_features"].toSymInt(),
                                 .x_sizes = x_sizes,
                                 .weight_type = data["weight_type"].toScalarType(),
                                 .bias_type = data["bias_type"].toScalarType(),
                                 .rms = data["rms"].toBool(),
                                 .backward = {static_cast<nn::Backward>(data["backward"].toInt()),
                                              data["stochastic_rounding"].toBool()}},
                                {.x = context->needs_input_grad(0),
                                 .weight = context->needs_input_grad(1),
                                 .bias = bias,
                                 .norm_weight = norm_weight},
                                outputs[0]);
      return {found.x,  found.weight, found.bias, found.norm_weight, Tensor(),
              Tensor(), Tensor(),     Tensor(),   Tensor()};
    }();
    return once_differentiable("trit::bit_linear", std::move(gradients));
  }
};

// The other overload, with the packed weight. A node of our own: torch::autograd::Function saves its state in
// a dictionary, which costs the host more time than launching the layer.
class BitLinearNode : public torch::autograd::Node {
 public:
  variable_list apply(variable_list&& grads) override {
    const std::lock_guard lock(mutex_);
    if (!grads[0].defined()) {
      return variable_list(4);
    }
    TORCH_CHECK(packed_ != nullptr, torch::autograd::ERR_BACKWARD_TWICE);
    variable_list gradients = [&]() -> variable_list {
      const torch::NoGradGuard no_grad;
      auto found = gradients_of({.x = x_.unpack(),
                                 .norm_weight = norm_weight_.unpack(),
                                 .q = q_.unpack(),
                                 .scale = scale_.unpack(),
                                 .rstd = rstd_.unpack(),
                                 .packed = packed_,
                                 .codes = packed_->codes(),
                                 .weight_scale = packed_->scale(),
                                 .group = packed_->group(),
                                 .in_features = packed_->in_features(),
                                 .x_sizes = x_sizes_,
                                 .weight_type = weight_type_,
                                 .bias_type = bias_type_,
                                 .rms = rms_,
                                 .backward = backward_},
                                {.x = task_should_compute_output(0),
                                 .weight = task_should_compute_output(1),
                                 .bias = task_should_compute_output(2),
                                 .norm_weight = task_should_compute_output(3)},
                                grads[0]);
      return {found.x, found.weight, found.bias, found.norm_weight};
    }();
    return once_differentiable("trit::bit_linear", std::move(gradients));
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    for (SavedVariable* saved : {&x_, &norm_weight_, &q_, &scale_, &rstd_}) {
      saved->reset_data();
    }
    packed_.reset();
  }

  static Tensor forward(const Tensor& x, const Tensor& weight, const Packed& packed,
                        const optional<Tensor>& bias, const optional<Tensor>& norm_weight, bool rms,
                        double eps, const BackwardKind& backward) {
    check_shapes(x, weight);
    check_backward(backward.products, packed->group());
    const auto node = std::shared_ptr<BitLinearNode>(new BitLinearNode, torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(x, weight, bias, norm_weight));
    const auto result = [&] {
      const at::AutoDispatchBelowADInplaceOrView below;
      return ops::bit_linear_forward(x, packed, bias, norm_weight, rms, eps);
    }();
    if (rms) {
      node->x_ = SavedVariable(x, false);
      node->norm_weight_ = SavedVariable(norm_weight, false);
      node->rstd_ = SavedVariable(result.rstd, false);
    }
    node->q_ = SavedVariable(result.q, false);
    node->scale_ = SavedVariable(result.scale, false);
    node->packed_ = packed;
    node->x_sizes_ = c10::SymDimVector(x.sym_sizes());
    node->weight_type_ = weight.scalar_type();
    node->bias_type_ = bias ? bias->scalar_type() : weight.scalar_type();
    node->rms_ = rms;
    node->backward_ = backward;
    torch::autograd::set_history(result.y, node);
    return result.y;
  }

 private:
  using SavedVariable = torch::autograd::SavedVariable;
  SavedVariable x_, norm_weight_, q_, scale_, rstd_;
  Packed packed_;
  c10::SymDimVector x_sizes_;
  torch::ScalarType weight_type_ = torch::kFloat, bias_type_ = torch::kFloat;
  bool rms_ = false;
  BackwardKind backward_;
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

// Whether one of the given tensors fulfils a condition.
template <typename Condition>
bool any_of(const Condition& condition, const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
            const optional<Tensor>& norm_weight) {
  return condition(x) || condition(weight) || (bias && condition(*bias)) ||
         (norm_weight && condition(*norm_weight));
}

Tensor bit_linear_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row,
                           std::string_view backward, bool stochastic_rounding, std::int64_t group) {
  return BitLinearFunction::apply(x, weight, bias, norm_weight, rms, eps, per_row,
                                  BackwardKind{backward_of(backward), stochastic_rounding}, group);
}

Tensor bit_linear_prepared_autograd(const Tensor& x, const Tensor& weight, const Packed& packed,
                                    const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                    bool rms, double eps, std::string_view backward,
                                    bool stochastic_rounding) {
  const BackwardKind kind{backward_of(backward), stochastic_rounding};
  TORCH_CHECK_NOT_IMPLEMENTED(!any_of([](const Tensor& tensor) { return tensor._fw_grad(0).defined(); }, x,
                                      weight, bias, norm_weight),
                              "trit::bit_linear: forward-mode differentiation is not implemented");
  if (torch::GradMode::is_enabled() &&
      any_of([](const Tensor& tensor) { return tensor.requires_grad(); }, x, weight, bias, norm_weight)) {
    return BitLinearNode::forward(x, weight, packed, bias, norm_weight, rms, eps, kind);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::bit_linear(x, weight, packed, bias, norm_weight, rms, eps, kind);
}

std::tuple<Tensor, Tensor> rms_norm_autograd(const Tensor& x, const optional<Tensor>& weight, double eps) {
  const auto outputs = RMSNormFunction::apply(x, weight, eps);
  return {outputs[0], outputs[1]};
}

// Autocast: only x, and with it y, becomes half. W, g, b and beta stay float32.
template <c10::DispatchKey key, c10::DeviceType device>
Tensor bit_linear_autocast(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                           const optional<Tensor>& norm_weight, bool rms, double eps, bool per_row,
                           std::string_view backward, bool stochastic_rounding, std::int64_t group) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  return ops::bit_linear(at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), x, device),
                         weight, bias, norm_weight, rms, eps, per_row,
                         {backward_of(backward), stochastic_rounding}, group);
}

template <c10::DispatchKey key, c10::DeviceType device>
Tensor bit_linear_prepared_autocast(const Tensor& x, const Tensor& weight, const Packed& packed,
                                    const optional<Tensor>& bias, const optional<Tensor>& norm_weight,
                                    bool rms, double eps, std::string_view backward,
                                    bool stochastic_rounding) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  return ops::bit_linear(at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), x, device),
                         weight, packed, bias, norm_weight, rms, eps,
                         {backward_of(backward), stochastic_rounding});
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
        "bit_linear_forward", "bit_linear_train", "linear_backward_input", "linear_backward_input.prepared",
        "linear_backward_weight", "linear_backward_int8", "linear_backward_int8.prepared",
        "rms_norm_backward"}) {
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

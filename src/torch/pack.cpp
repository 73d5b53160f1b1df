// SPDX-License-Identifier: MIT
#include <typeinfo>

#include "torch/packed_weight.h"
#include "trit/error.h"
#include "trit/torch.h"

namespace trit::nn {
namespace {

using Tensors = std::map<std::string, torch::Tensor>;

// A float32 copy on the CPU, all values finite.
torch::Tensor exported(const std::string& name, const torch::Tensor& parameter) {
  TORCH_CHECK(parameter.is_floating_point(), "trit::nn::pack: ", name, " is ", parameter.scalar_type(),
              ", wanted a floating-point parameter or buffer");
  auto value =
      parameter.detach().to(torch::kCPU, torch::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const auto bad = value.isfinite().logical_not().flatten();
  if (bad.any().item<bool>()) {
    const auto first = bad.to(torch::kByte).argmax().item<std::int64_t>();
    const auto columns = value.dim() == 0 ? 1 : value.size(-1);
    throw Error("pack: " + name + " is " + std::to_string(value.flatten()[first].item<float>()) + " at row " +
                std::to_string(first / columns) + ", column " + std::to_string(first % columns) +
                ", wanted finite values");
  }
  return value;
}

// A buffer that is no floating-point number (a count, a mask), in its own type.
torch::Tensor copied(const std::string& name, const torch::Tensor& buffer) {
  TORCH_CHECK(!buffer.is_complex() && buffer.layout() == torch::kStrided, "trit::nn::pack: ", name, " is ",
              buffer.scalar_type(), ", wanted a dense buffer of numbers");
  return buffer.detach()
      .to(torch::kCPU, buffer.scalar_type(), /*non_blocking=*/false, /*copy=*/true)
      .contiguous();
}

// Layers of the two kinds in a module tree.
struct Layers {
  std::size_t ternary = 0;
  std::vector<std::string> linear;  // names of torch::nn::Linear
};

void pack_into(const torch::nn::Module& module, const std::string& prefix, Tensors& tensors, Layers& layers) {
  const auto* ternary = module.as<BitLinearImpl>();
  if (ternary != nullptr) {
    ++layers.ternary;
  } else if (typeid(module) == typeid(torch::nn::LinearImpl)) {
    layers.linear.push_back(prefix + "weight");
  }
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    const std::string name = prefix + parameter.key();
    const auto value = exported(name, parameter.value());
    if (ternary != nullptr && parameter.key() == "weight") {
      const auto packed = torch_layer::PackedWeight::from_float(
          value, ternary->options.scale() == ScaleGranularity::row, ternary->options.group());
      tensors[name] = packed->codes();
      tensors[name + "_scale"] = packed->scale();
    } else {
      tensors[name] = value;
    }
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    const std::string name = prefix + buffer.key();
    if (buffer.value().defined()) {
      tensors[name] =
          buffer.value().is_floating_point() ? exported(name, buffer.value()) : copied(name, buffer.value());
    }
  }
  for (const auto& child : module.named_children()) {
    pack_into(*child.value(), prefix + child.key() + ".", tensors, layers);
  }
}

}  // namespace

Tensors pack(const torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  Tensors tensors;
  Layers layers;
  pack_into(module, "", tensors, layers);
  if (layers.ternary == 0 && !layers.linear.empty()) {
    TORCH_WARN("trit::nn::pack: ", module.name(), " has no BitLinear: its ", layers.linear.size(),
               " torch::nn::Linear layers (", layers.linear.front(), ", ...) are copied as float32");
  }
  return tensors;
}

}  // namespace trit::nn

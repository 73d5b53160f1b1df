// SPDX-License-Identifier: MIT
#include "torch/packed_weight.h"
#include "trit/error.h"
#include "trit/torch.h"

namespace trit::nn {
namespace {

using Tensors = std::map<std::string, torch::Tensor>;

// A float32 copy on the CPU, all values finite.
torch::Tensor exported(const std::string& name, const torch::Tensor& parameter) {
  TORCH_CHECK(parameter.is_floating_point(), "trit::nn::pack: ", name, " is ", parameter.scalar_type(),
              ", wanted a floating-point parameter");
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

void pack_into(const torch::nn::Module& module, const std::string& prefix, Tensors& tensors) {
  const auto* ternary = module.as<BitLinearImpl>();
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    const std::string name = prefix + parameter.key();
    const auto value = exported(name, parameter.value());
    if (ternary != nullptr && parameter.key() == "weight") {
      const auto packed =
          torch_layer::PackedWeight::from_float(value, ternary->options.scale() == ScaleGranularity::row);
      tensors[name] = packed->codes();
      tensors[name + "_scale"] = packed->scale();
    } else {
      tensors[name] = value;
    }
  }
  for (const auto& child : module.named_children()) {
    pack_into(*child.value(), prefix + child.key() + ".", tensors);
  }
}

}  // namespace

Tensors pack(const torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  Tensors tensors;
  pack_into(module, "", tensors);
  return tensors;
}

}  // namespace trit::nn

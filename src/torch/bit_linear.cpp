// SPDX-License-Identifier: MIT
#include <cmath>

#include "torch/ops.h"
#include "torch/packed_weight.h"
#include "trit/torch.h"

namespace trit::nn {
namespace {

namespace ops = torch_layer::ops;

// parameter's values from the archive, in the parameter's own dtype and device.
void read_parameter(torch::serialize::InputArchive& archive, const std::string& name,
                    torch::Tensor& parameter) {
  torch::Tensor stored;
  archive.read(name, stored);
  TORCH_CHECK(stored.sizes() == parameter.sizes(), "trit::nn::BitLinear: '", name, "' is ", stored.sizes(),
              " in the archive, wanted ", parameter.sizes());
  const torch::NoGradGuard no_grad;
  parameter.copy_(stored);
}

const char* name_of(ScaleGranularity scale) {
  return scale == ScaleGranularity::group ? "group" : scale == ScaleGranularity::row ? "row" : "tensor";
}

// x + lambda * (quantised - x): the value of the blend, the gradient of x.
torch::Tensor blend(const torch::Tensor& value, const torch::Tensor& quantised, double lambda) {
  return value + (lambda * (quantised - value)).detach();
}

}  // namespace

BitLinearImpl::BitLinearImpl(const BitLinearOptions& layer_options) : options(layer_options) {
  BitLinearImpl::reset();
}

void BitLinearImpl::reset() {
  TORCH_CHECK(options.in_features() >= 1 && options.out_features() >= 1 && options.eps() > 0,
              "trit::nn::BitLinear: wanted in_features >= 1, out_features >= 1 and eps > 0, found ",
              options.in_features(), ", ", options.out_features(), " and ", options.eps());
  TORCH_CHECK(
      options.scale() == ScaleGranularity::group ? is_group_size(options.group()) : options.group() == 0,
      "trit::nn::BitLinear: scale is ", name_of(options.scale()), " and group ", options.group(),
      ", wanted scale(trit::ScaleGranularity::group, inputs) with a multiple of ", kGroupStep,
      ", or another scale and no group");
  torch_layer::check_backward(options.backward(), options.group());
  weight = register_parameter("weight", torch::empty({options.out_features(), options.in_features()}));
  bias = register_parameter("bias", options.bias() ? torch::empty({options.out_features()}) : torch::Tensor(),
                            options.bias());
  norm = nullptr;
  if (options.norm() == Norm::rms) {
    norm = register_module("norm", RMSNorm(RMSNormOptions(options.in_features()).eps(options.eps())));
  }
  cache_ = std::make_shared<torch_layer::PackedWeightCache>();
  reset_parameters();
}

void BitLinearImpl::reset_parameters() {
  // As torch::nn::Linear: W and b uniform in +-1 / sqrt(in_features).
  torch::nn::init::kaiming_uniform_(weight, std::sqrt(5.0));
  if (bias.defined()) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(options.in_features()));
    torch::nn::init::uniform_(bias, -bound, bound);
  }
  if (norm) {
    norm->reset_parameters();
  }
}

void BitLinearImpl::pretty_print(std::ostream& stream) const {
  stream << std::boolalpha << "trit::nn::BitLinear(in_features=" << options.in_features()
         << ", out_features=" << options.out_features() << ", bias=" << options.bias()
         << ", norm=" << (options.norm() == Norm::rms ? "rms" : "none") << ", eps=" << options.eps()
         << ", scale=" << name_of(options.scale());
  if (options.group() != 0) {
    stream << ":" << options.group();
  }
  if (options.backward() != Backward::exact) {
    stream << ", backward=" << torch_layer::name_of(options.backward());
    if (options.stochastic_rounding()) {
      stream << ", stochastic_rounding";
    }
  }
  if (options.lambda() < 1) {
    stream << ", lambda=" << options.lambda();
  }
  stream << ")";
}

void BitLinearImpl::load(torch::serialize::InputArchive& archive) {
  read_parameter(archive, "weight", weight);
  torch::Tensor ignored;
  if (bias.defined()) {
    read_parameter(archive, "bias", bias);
  } else {
    // A layer without a bias archives "bias" as an undefined tensor, or not at all.
    TORCH_CHECK(!archive.try_read("bias", ignored) || !ignored.defined(),
                "trit::nn::BitLinear: the archive has a bias, this layer has none");
  }
  torch::serialize::InputArchive norm_archive;
  if (archive.try_read("norm", norm_archive)) {
    TORCH_CHECK(norm, "trit::nn::BitLinear: the archive has a norm, this layer has none");
    read_parameter(norm_archive, "weight", norm->weight);
  }
}

void BitLinearImpl::share_parameters(const torch::Tensor& new_weight, const torch::Tensor& new_bias) {
  TORCH_CHECK(new_weight.sizes() == weight.sizes() && new_bias.defined() == bias.defined() &&
                  (!bias.defined() || new_bias.sizes() == bias.sizes()),
              "trit::nn::BitLinear: parameters to share do not fit");
  parameters_["weight"] = weight = new_weight;
  if (bias.defined()) {
    parameters_["bias"] = bias = new_bias;
  }
}

torch::Tensor BitLinearImpl::forward(const torch::Tensor& x) {
  const double lambda = options.lambda();
  TORCH_CHECK(lambda >= 0 && lambda <= 1, "trit::nn::BitLinear: lambda is ", lambda, ", wanted 0 to 1");
  if (lambda < 1) {
    return warm_up(x);
  }
  const bool rms = !norm.is_empty();
  const bool per_row = options.scale() == ScaleGranularity::row;
  const auto norm_weight = rms ? std::optional(norm->weight) : std::nullopt;
  const auto offset = bias.defined() ? std::optional(bias) : std::nullopt;
  const torch_layer::BackwardKind backward{options.backward(), options.stochastic_rounding()};
  if (!weight.is_cpu() && !weight.is_cuda()) {
    return ops::bit_linear(x, weight, offset, norm_weight, rms, options.eps(), per_row, backward,
                           options.group());
  }
  return ops::bit_linear(x, weight, cache_->get(weight, per_row, options.group()), offset, norm_weight, rms,
                         options.eps(), backward);
}

void BitLinearImpl::use_packed(const torch::Tensor& codes, const torch::Tensor& scale) {
  if (!codes.defined()) {
    cache_->pin({});
    return;
  }
  TORCH_CHECK(codes.dim() == 2 && codes.size(0) == options.out_features(),
              "trit::nn::BitLinear: wanted codes of ", options.out_features(), " outputs, found ",
              codes.sizes());
  cache_->pin(
      c10::make_intrusive<torch_layer::PackedWeight>(codes, scale, options.in_features(), options.group()));
}

torch::Tensor BitLinearImpl::warm_up(const torch::Tensor& x) {
  TORCH_CHECK(!cache_->is_pinned(), "trit::nn::BitLinear: lambda is ", options.lambda(),
              ", and with lambda < 1 the float weight is needed, but the layer has codes alone (use_packed)");
  const double lambda = options.lambda();
  const bool rms = !norm.is_empty();
  torch::Tensor inputs = rms ? norm->forward(x) : x;
  torch::Tensor weights = weight;
  if (lambda > 0) {
    torch::Tensor quantised_inputs;
    torch::Tensor quantised_weights;
    {
      const torch::NoGradGuard no_grad;
      const auto rows = ops::norm_quant(x.reshape({-1, x.size(-1)}),
                                        rms ? std::optional(norm->weight) : std::nullopt, rms, options.eps());
      quantised_inputs = (rows.q.narrow(1, 0, x.size(-1)).to(torch::kFloat) * rows.scale.unsqueeze(1))
                             .reshape(x.sizes())
                             .to(inputs.scalar_type());
      const auto scale = ops::absmean(weight, options.scale() == ScaleGranularity::row, options.group());
      const auto codes = ops::ternarize_pack(weight, scale, options.group());
      quantised_weights =
          ops::dequantize(codes, scale, options.in_features(), weight.scalar_type(), options.group());
    }
    inputs = blend(inputs, quantised_inputs, lambda);
    weights = blend(weights, quantised_weights, lambda);
  }
  return torch::nn::functional::linear(inputs, weights, bias);
}

std::int64_t BitLinearImpl::times_packed() const { return cache_->packs(); }

}  // namespace trit::nn

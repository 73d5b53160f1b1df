// SPDX-License-Identifier: MIT
#include "torch/ops.h"
#include "trit/torch.h"

namespace trit::nn {

RMSNormImpl::RMSNormImpl(const RMSNormOptions& norm_options) : options(norm_options) { RMSNormImpl::reset(); }

void RMSNormImpl::reset() {
  TORCH_CHECK(options.features() >= 1 && options.eps() > 0,
              "trit::nn::RMSNorm: wanted features >= 1 and eps > 0, found ", options.features(), " and ",
              options.eps());
  weight = register_parameter("weight", torch::empty({options.features()}));
  reset_parameters();
}

void RMSNormImpl::reset_parameters() { torch::nn::init::ones_(weight); }

void RMSNormImpl::pretty_print(std::ostream& stream) const {
  stream << "trit::nn::RMSNorm(features=" << options.features() << ", eps=" << options.eps() << ")";
}

torch::Tensor RMSNormImpl::forward(const torch::Tensor& x) {
  return std::get<0>(torch_layer::ops::rms_norm(x, weight, options.eps()));
}

}  // namespace trit::nn

// SPDX-License-Identifier: MIT
#include "train_cifar10/network.h"

#include "train_cifar10/relu_pool.h"

namespace trit::train {
namespace {

constexpr std::int64_t kFlat = 64 * 8 * 8, kHidden = 512, kClasses = 10;

torch::nn::Conv2d convolution(std::int64_t in_channels, std::int64_t out_channels) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(in_channels, out_channels, 3).padding(1));
}

trit::nn::Backward backward_of(BackwardKind kind) {
  return kind == BackwardKind::exact        ? trit::nn::Backward::exact
         : kind == BackwardKind::int8_input ? trit::nn::Backward::int8_input
                                            : trit::nn::Backward::int8_all;
}

trit::nn::BitLinear bit_linear(std::int64_t in_features, std::int64_t out_features, BackwardKind backward,
                               const apps::Scales& scales) {
  return trit::nn::BitLinear(trit::nn::BitLinearOptions(in_features, out_features)
                                 .bias(false)
                                 .scale(scales.granularity, scales.group)
                                 .backward(backward_of(backward)));
}

}  // namespace

NormLinearImpl::NormLinearImpl(std::int64_t in_features, std::int64_t out_features)
    : LinearImpl(torch::nn::LinearOptions(in_features, out_features).bias(false)),
      norm(register_module("norm", trit::nn::RMSNorm(in_features))) {}

torch::Tensor NormLinearImpl::forward(const torch::Tensor& x) { return LinearImpl::forward(norm(x)); }

SimpleBitNetCNNImpl::SimpleBitNetCNNImpl(LinearKind linear, BackwardKind backward, const apps::Scales& scales)
    : linear_(linear),
      conv1_(register_module("conv1", convolution(3, 32))),
      conv2_(register_module("conv2", convolution(32, 64))) {
  if (linear_ == LinearKind::ternary) {
    ternary1_ = register_module("fc1", bit_linear(kFlat, kHidden, backward, scales));
    ternary2_ = register_module("fc2", bit_linear(kHidden, kClasses, backward, scales));
  } else {
    float1_ = register_module("fc1", NormLinear(kFlat, kHidden));
    float2_ = register_module("fc2", NormLinear(kHidden, kClasses));
  }
}

torch::Tensor SimpleBitNetCNNImpl::forward(const torch::Tensor& x) {
  torch::Tensor h = relu_max_pool(conv1_(x));
  h = relu_max_pool(conv2_(h));
  h = h.flatten(1);  // in the order of [64, 8, 8], whatever the order in memory
  h = linear_ == LinearKind::ternary ? ternary1_(h) : float1_(h);
  torch::relu_(h);
  return linear_ == LinearKind::ternary ? ternary2_(h) : float2_(h);
}

}  // namespace trit::train

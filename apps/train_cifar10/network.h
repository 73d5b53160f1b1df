// SPDX-License-Identifier: MIT
//
// SimpleBitNetCNN: two float convolutions and two ternary linear layers.
//
//   x [B, 3, 32, 32] -> conv1 3->32 3x3 pad 1, ReLU, max-pool 2 -> [B, 32, 16, 16]
//                    -> conv2 32->64 3x3 pad 1, ReLU, max-pool 2 -> [B, 64, 8, 8]
//                    -> flatten [B, 4096] -> fc1 BitLinear 4096->512, ReLU -> fc2 BitLinear 512->10 -> logits
//
// Both BitLinear have RMSNorm inside and no bias. The fp32 twin has torch::nn::Linear behind the same
// RMSNorm, with the same parameter names and the same initial weights for a seed.
#pragma once

#include <torch/torch.h>

#include "common/scale_option.h"
#include "train_cifar10/options.h"
#include "trit/torch.h"

namespace trit::train {

/// y = Linear(RMSNorm(x)), without bias; parameters "weight" and "norm.weight" as BitLinear's.
/// (clone() would turn it into a plain Linear.)
class NormLinearImpl : public torch::nn::LinearImpl {
 public:
  NormLinearImpl(std::int64_t in_features, std::int64_t out_features);
  torch::Tensor forward(const torch::Tensor& x);

  trit::nn::RMSNorm norm{nullptr};
};
TORCH_MODULE(NormLinear);

class SimpleBitNetCNNImpl : public torch::nn::Module {
 public:
  explicit SimpleBitNetCNNImpl(LinearKind linear, BackwardKind backward = BackwardKind::exact,
                               const apps::Scales& scales = {});
  /// x [B, 3, 32, 32], best in channels-last order -> logits [B, 10].
  torch::Tensor forward(const torch::Tensor& x);

  LinearKind linear() const { return linear_; }

 private:
  LinearKind linear_;
  torch::nn::Conv2d conv1_, conv2_;
  trit::nn::BitLinear ternary1_{nullptr}, ternary2_{nullptr};
  NormLinear float1_{nullptr}, float2_{nullptr};
};
TORCH_MODULE(SimpleBitNetCNN);

}  // namespace trit::train

// SPDX-License-Identifier: MIT
//
// The 8-bit backward on a GPU: the bits of its definition, the layer's gradients those of the CPU, and new random
// numbers at each replay of a graph.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <limits>

#include "torch/gradient_int8_reference.h"

namespace trit::test {
namespace {

namespace ops = torch_layer::ops;
using nn::Backward;

const torch::Device kGpu(torch::kCUDA, 0);

std::pair<Tensor, Tensor> on_gpu(const Int8Case& layer, torch::ScalarType weight_type,
                                 bool stochastic = false) {
  // The GPU's own q has rows of 16 bytes.
  const Tensor q = torch::zeros({layer.x.q.size(0), (layer.in_features() + 15) / 16 * 16},
                                torch::device(kGpu).dtype(torch::kChar));
  const Tensor own = q.narrow(1, 0, layer.x.q.size(1));
  own.copy_(layer.x.q);
  const auto [grad_x, grad_w] = ops::linear_backward_int8(
      layer.grad.to(kGpu), own, layer.x.scale.to(kGpu), layer.codes.to(kGpu), layer.weight_scale.to(kGpu),
      layer.in_features(), weight_type, {true, true}, stochastic);
  return {grad_x.cpu(), grad_w.cpu()};
}

TEST(CudaGradientInt8, HasTheBitsOfTheDefinition) {
  torch::manual_seed(51);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const bool per_row : {false, true}) {
      for (const auto& [tokens, inputs, outputs] : {std::array<std::int64_t, 3>{1, 1, 1},
                                                    {3, 9, 5},
                                                    {19, 300, 70},
                                                    {130, 67, 256},
                                                    {260, 520, 136}}) {
        SCOPED_TRACE(c10::toString(dtype) + std::string(per_row ? ", per row, " : ", ") +
                     std::to_string(tokens) + " x " + std::to_string(inputs) + " -> " +
                     std::to_string(outputs));
        Int8Case layer = int8_case(tokens, inputs, outputs, per_row, dtype);
        if (tokens > 2) {
          layer.grad[1].zero_();
          layer.grad[2][0] = std::numeric_limits<float>::quiet_NaN();
        }
        const auto want = int8_gradients(layer);
        const auto found = on_gpu(layer, torch::kFloat);
        EXPECT_TRUE(same_bits(found.first, want.first)) << "dX";
        EXPECT_TRUE(same_bits(found.second, want.second)) << "dW";
        EXPECT_TRUE(same_bits(on_gpu(layer, torch::kBFloat16).second, want.second.to(torch::kBFloat16)));
      }
    }
  }
}

TEST(CudaGradientInt8, OfALayerIsThatOfTheCpu) {
  torch::manual_seed(52);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row}) {
      auto cpu = layer(520, 264, false, Norm::rms, scale);
      cpu->options.backward(Backward::int8_all);
      nn::BitLinear gpu(std::dynamic_pointer_cast<nn::BitLinearImpl>(cpu->clone(kGpu)));
      const auto input = torch::randn({70, 520}).to(dtype);
      const auto grad_y = torch::randn({70, 264}).to(dtype);
      auto x = input.clone().requires_grad_();
      auto there = input.to(kGpu).requires_grad_();
      cpu(x).backward(grad_y);
      gpu(there).backward(grad_y.to(kGpu));
      EXPECT_TRUE(same_bits(there.grad().cpu(), x.grad()));
      EXPECT_TRUE(same_bits(gpu->weight.grad().cpu(), cpu->weight.grad()));
    }
  }
}

// More tokens than one int32 sum holds: parts, added in fp32.
TEST(CudaGradientInt8, ManyTokensAreAddedInParts) {
  torch::manual_seed(53);
  const Int8Case layer = int8_case(kMaxGradientTokens + 300, 24, 16, false, torch::kBFloat16);
  const auto want = int8_gradients(layer);
  const auto found = on_gpu(layer, torch::kFloat);
  EXPECT_TRUE(same_bits(found.first, want.first));
  EXPECT_TRUE(same_bits(found.second, want.second));
}

TEST(CudaGradientInt8, RoundsAtRandomAnewAtEachReplay) {
  torch::manual_seed(54);
  const Int8Case layer = int8_case(64, 128, 96, false, torch::kBFloat16);
  const auto nearest = on_gpu(layer, torch::kFloat);
  const auto grad = layer.grad.to(kGpu), q = layer.x.q.to(kGpu), scale = layer.x.scale.to(kGpu),
             codes = layer.codes.to(kGpu), weight_scale = layer.weight_scale.to(kGpu);
  const auto backward = [&] {
    return ops::linear_backward_int8(grad, q, scale, codes, weight_scale, 128, torch::kFloat, {true, true},
                                     true);
  };
  const auto both = backward();
  const auto first = std::get<1>(both).cpu();
  const auto want = int8_gradients(layer, {true, 54, 0});
  EXPECT_TRUE(same_bits(std::get<0>(both).cpu(), want.first) && same_bits(first, want.second));
  EXPECT_FALSE(torch::equal(first, std::get<1>(backward()).cpu()));
  const auto difference = [](const Tensor& a, const Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(difference(first, nearest.second), 0.03);
  c10::cuda::getCurrentCUDAStream().synchronize();
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  backward();
  c10::cuda::getCurrentCUDAStream().synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const auto captured = backward();
  graph.capture_end();
  graph.replay();
  const auto one = std::get<1>(captured).cpu();
  graph.replay();
  const auto two = std::get<1>(captured).cpu();
  EXPECT_FALSE(torch::equal(one, two));
  EXPECT_LT(difference(one, nearest.second), 0.03);
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// The operators on a GPU on tensors with NaN, infinities, -0.0 and denormals: the CPU's bits, and where sums
// are LibTorch's, the NaN and infinities of its own product. The main function is that of cuda_test.cpp.
#include <array>
#include <random>

#include "cuda/special_values.h"
#include "run_seed.h"
#include "torch/gradient_reference.h"
#include "torch/ops.h"

namespace trit::test {
namespace {

namespace ops = torch_layer::ops;
const torch::Device kGpu(torch::kCUDA, 0);

class CudaSpecialValues : public ::testing::Test {
 protected:
  CudaSpecialValues() {
    random_.seed(run_seed());
    torch::manual_seed(run_seed());
  }
  std::int64_t uniform(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Tensor special(at::IntArrayRef shape, torch::ScalarType type = torch::kFloat) {
    const std::int64_t count = c10::multiply_integers(shape);
    const double share = uniform(0, 1) == 0 ? 0.3 : 1.0 / static_cast<double>(count);
    const std::vector<float> drawn = special_values(random_, static_cast<std::size_t>(count), share);
    return torch::tensor(drawn).reshape(shape).to(type);
  }
  torch::ScalarType any_type() {
    return std::array{torch::kFloat, torch::kHalf, torch::kBFloat16}.at(
        static_cast<std::size_t>(uniform(0, 2)));
  }

  std::mt19937_64 random_;
};

TEST_F(CudaSpecialValues, LayersHaveTheBitsOfTheCpu) {
  const torch::NoGradGuard no_grad;
  for (int i = 0; i < 300; ++i) {
    const std::int64_t in_features = uniform(1, 300);
    auto cpu =
        layer(in_features, uniform(1, 70), uniform(0, 1) == 0, uniform(0, 1) == 0 ? Norm::rms : Norm::none);
    nn::BitLinear gpu(std::dynamic_pointer_cast<nn::BitLinearImpl>(cpu->clone(kGpu)));
    const auto x = special({uniform(1, 40), in_features}, any_type());
    ASSERT_TRUE(same_bits(gpu->forward(x.to(kGpu)).cpu(), cpu(x))) << "case " << i;
  }
}

TEST_F(CudaSpecialValues, NormsAndWeightsHaveTheBitsOfTheCpu) {
  for (int i = 0; i < 300; ++i) {
    const std::int64_t rows = uniform(1, 20), features = uniform(1, 600);
    const auto x = special({rows, features}, any_type());
    const auto g = torch::rand({features}) + 0.5;
    const auto [y, rstd] = ops::rms_norm(x, g, 1e-6);
    const auto [there, rstd_there] = ops::rms_norm(x.to(kGpu), g.to(kGpu), 1e-6);
    ASSERT_TRUE(same_bits(there.cpu(), y)) << "case " << i;
    ASSERT_TRUE(same_bits(rstd_there.cpu(), rstd)) << "case " << i;
    const auto inputs = special({rows, features}), grad = special({rows, features});
    const auto r = std::get<1>(ops::rms_norm(inputs, g, 1e-6));
    const auto grad_x = std::get<0>(ops::rms_norm_backward(grad, inputs, r, g, {true, false}));
    const auto grad_x_there = std::get<0>(
        ops::rms_norm_backward(grad.to(kGpu), inputs.to(kGpu), r.to(kGpu), g.to(kGpu), {true, false}));
    ASSERT_TRUE(same_bits(grad_x_there.cpu(), grad_x)) << "case " << i;

    const auto weight = special({rows, features});
    const bool per_row = i % 2 == 0;
    const auto scale = ops::absmean(weight, per_row);
    ASSERT_TRUE(same_bits(ops::absmean(weight.to(kGpu), per_row).cpu(), scale)) << "case " << i;
    const auto codes = ops::ternarize_pack(torch::randn({rows, features}), torch::ones({1}));
    const auto any_scale = special({per_row ? rows : 1});
    ASSERT_TRUE(same_bits(ops::dequantize(codes.to(kGpu), any_scale.to(kGpu), features, torch::kFloat).cpu(),
                          ops::dequantize(codes, any_scale, features, torch::kFloat)))
        << "case " << i;
  }
}

/// dX = dY W: a NaN or an infinity of a gradient reaches what LibTorch's own product carries it to.
TEST_F(CudaSpecialValues, GradientsHaveTheSpecialValuesOfLibTorch) {
  for (int i = 0; i < 100; ++i) {
    const std::int64_t tokens = uniform(1, 20), in_features = uniform(1, 200), out_features = uniform(1, 70);
    auto grad = special({tokens, out_features});
    grad.masked_fill_(grad.abs().isfinite().logical_and(grad.abs() > 4), 4.0);  // no overflow
    const auto scale = torch::full({1}, 0.5);
    const auto codes = ops::ternarize_pack(torch::randn({out_features, in_features}), torch::ones({1}));
    const auto want = at::mm(grad.to(torch::kDouble),
                             ops::dequantize(codes, scale, in_features, torch::kFloat).to(torch::kDouble));
    const auto got =
        ops::linear_backward_input(grad.to(kGpu), codes.to(kGpu), scale.to(kGpu), in_features).cpu();
    ASSERT_TRUE(torch::allclose(got.to(torch::kDouble), want, 1e-4, 1e-4, /*equal_nan=*/true))
        << "case " << i;
  }
}

}  // namespace
}  // namespace trit::test

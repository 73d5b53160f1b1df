// SPDX-License-Identifier: MIT
//
// The operators on a GPU: the CPU's bits forward, autograd of the plain formulas in double backward, and what
// only a GPU has: streams, captured graphs, tensors on two devices.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstdio>
#include <limits>
#include <tuple>

#include "torch/gradient_reference.h"
#include "torch/ops.h"

namespace trit::test {
namespace {

const torch::Device kGpu(torch::kCUDA, 0);

nn::BitLinear on_gpu(const nn::BitLinear& fc) {
  return nn::BitLinear(std::dynamic_pointer_cast<nn::BitLinearImpl>(fc->clone(kGpu)));
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

// A granularity, and the size of groups with it.
using Scales = std::pair<ScaleGranularity, std::int64_t>;
constexpr Scales kTensor{ScaleGranularity::tensor, 0}, kRow{ScaleGranularity::row, 0};
constexpr Scales kGroups64{ScaleGranularity::group, 64}, kGroups96{ScaleGranularity::group, 96},
    kGroups128{ScaleGranularity::group, 128};

using Case = std::tuple<torch::ScalarType, Norm, bool, Scales>;
class CudaForward : public ::testing::TestWithParam<Case> {};

TEST_P(CudaForward, HasTheBitsOfTheCpu) {
  const auto [dtype, norm, bias, scales] = GetParam();
  torch::manual_seed(21);
  for (const auto& [in_features, out_features] :
       {std::pair{1, 1}, {5, 3}, {255, 17}, {600, 5}, {1030, 130}, {4096, 512}, {2560, 640}}) {
    auto cpu = layer(in_features, out_features, bias, norm, scales.first, scales.second);
    auto gpu = on_gpu(cpu);
    for (const std::int64_t tokens : {0, 1, 2, 7, 9, 33, 128, 300}) {
      auto x = (torch::randn({tokens, in_features}) * 3).to(dtype);
      if (tokens > 2) {
        x[1][0] = std::numeric_limits<float>::quiet_NaN();
      }
      const auto want = cpu(x).detach();
      // With a graph for the backward, and without, which is another path.
      EXPECT_TRUE(same_bits(gpu(x.to(kGpu)).detach().cpu(), want))
          << in_features << " -> " << out_features << ", " << tokens << " tokens";
      const torch::NoGradGuard no_grad;
      EXPECT_TRUE(same_bits(gpu(x.to(kGpu)).cpu(), want))
          << in_features << " -> " << out_features << ", " << tokens << " tokens, no gradients";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaForward,
                         ::testing::Combine(::testing::Values(torch::kFloat, torch::kHalf, torch::kBFloat16),
                                            ::testing::Values(Norm::none, Norm::rms), ::testing::Bool(),
                                            ::testing::Values(kTensor, kRow, kGroups64, kGroups96,
                                                              kGroups128)));

TEST(CudaShapes, AnyNumberOfDimensionsAndAnyStrides) {
  torch::manual_seed(22);
  auto cpu = layer(20, 6, true, Norm::rms);
  auto gpu = on_gpu(cpu);
  for (const auto& x :
       {torch::randn({2, 3, 4, 20}), torch::randn({20}), torch::randn({3, 0, 20}), torch::randn({20, 9}).t(),
        torch::randn({9, 40}).narrow(1, 7, 20), torch::randn({1, 20}).expand({5, 20}),
        torch::randn({9, 40}).slice(1, 0, 40, 2), torch::randn({2, 20, 3}).transpose(1, 2)}) {
    // The device's copy gets the same strides.
    const auto elements = static_cast<std::int64_t>(x.storage().nbytes() / sizeof(float));
    const auto there =
        x.as_strided({elements}, {1}, 0).to(kGpu).as_strided(x.sizes(), x.strides(), x.storage_offset());
    const auto want = cpu(x).detach();
    EXPECT_TRUE(same_bits(gpu(x.to(kGpu)).detach().cpu(), want)) << x.sizes() << x.strides();
    EXPECT_TRUE(same_bits(gpu(there).detach().cpu(), want)) << x.sizes() << x.strides();
    const torch::NoGradGuard no_grad;
    EXPECT_TRUE(same_bits(gpu(there).cpu(), want)) << x.sizes() << x.strides();
  }
}

TEST(CudaOperators, AgreeWithTheCpus) {
  namespace ops = torch_layer::ops;
  torch::manual_seed(23);
  const auto weight = torch::randn({70, 203}), x = torch::randn({5, 203});
  for (const auto& [per_row, group] : {std::pair{false, 0}, {true, 0}, {false, 64}, {false, 32}}) {
    const auto scale = ops::absmean(weight, per_row, group);
    const auto codes = ops::ternarize_pack(weight, scale, group);
    const auto gpu_scale = ops::absmean(weight.to(kGpu), per_row, group);
    const auto gpu_codes = ops::ternarize_pack(weight.to(kGpu), gpu_scale, group);
    EXPECT_TRUE(same_bits(gpu_scale.cpu(), scale));
    EXPECT_TRUE(gpu_codes.cpu().equal(codes));
    EXPECT_TRUE(same_bits(ops::dequantize(gpu_codes, gpu_scale, 203, torch::kFloat, group).cpu(),
                          ops::dequantize(codes, scale, 203, torch::kFloat, group)));
    const auto quantized = ops::norm_quant(x, std::nullopt, true, 1e-6);
    const auto there = ops::norm_quant(x.to(kGpu), std::nullopt, true, 1e-6);
    EXPECT_TRUE(there.q.narrow(1, 0, 203).cpu().equal(quantized.q.narrow(1, 0, 203)));
    EXPECT_TRUE(there.q_sum.cpu().equal(quantized.q_sum));
    EXPECT_TRUE(same_bits(there.scale.cpu(), quantized.scale));
    EXPECT_TRUE(same_bits(there.rstd.cpu(), quantized.rstd));
    const auto y = ops::packed_linear(quantized, codes, scale, 203, std::nullopt, torch::kFloat, group);
    EXPECT_TRUE(same_bits(
        ops::packed_linear(there, gpu_codes, gpu_scale, 203, std::nullopt, torch::kFloat, group).cpu(), y));
    // q of another allocation, without padding.
    const ops::NormQuantResult copied{there.q.clone(at::MemoryFormat::Contiguous), there.scale, there.rstd,
                                      there.q_sum};
    EXPECT_TRUE(same_bits(
        ops::packed_linear(copied, gpu_codes, gpu_scale, 203, std::nullopt, torch::kFloat, group).cpu(), y));
    EXPECT_TRUE(same_bits(ops::bit_linear(x.to(kGpu), weight.to(kGpu), std::nullopt, std::nullopt, true, 1e-6,
                                          per_row, {}, group)
                              .cpu(),
                          y));
  }
}

TEST(CudaNorm, HasTheBitsOfTheCpu) {
  torch::manual_seed(24);
  nn::RMSNorm cpu(777);
  {
    const torch::NoGradGuard no_grad;
    cpu->weight.uniform_(0.5, 1.5);
  }
  nn::RMSNorm gpu(std::dynamic_pointer_cast<nn::RMSNormImpl>(cpu->clone(kGpu)));
  const auto x = torch::randn({40, 3, 777}).requires_grad_();
  const auto there = x.detach().to(kGpu).requires_grad_();
  const auto grad_y = torch::randn(x.sizes());
  const auto y = cpu(x), z = gpu(there);
  EXPECT_TRUE(same_bits(z.detach().cpu(), y.detach()));
  y.backward(grad_y);
  z.backward(grad_y.to(kGpu));
  EXPECT_TRUE(same_bits(there.grad().cpu(), x.grad()));
  EXPECT_TRUE(torch::allclose(gpu->weight.grad().cpu(), cpu->weight.grad(), 1e-4, 1e-4));
}

// As `check` of gradient_test.cpp, with the layer on the GPU.
void check(nn::BitLinear fc, const Tensor& input, double unit) {
  auto gpu = on_gpu(fc);
  auto x = input.detach().to(kGpu).requires_grad_();
  const auto y = gpu(x);
  const auto grad_y = torch::randn(y.sizes()).to(y.scalar_type());
  y.backward(grad_y.to(kGpu));
  const auto want = reference(fc, input, grad_y);
  const std::int64_t tokens = input.numel() / input.size(-1);
  expect_close(x.grad().cpu(), want.x, unit, fc->options.out_features() + 8, "x");
  expect_close(gpu->weight.grad().cpu(), want.weight, unit, tokens + 8, "weight");
  expect_close(fc->bias.defined() ? gpu->bias.grad().cpu() : Tensor(), want.bias, unit, tokens + 8, "bias");
  expect_close(fc->norm ? gpu->norm->weight.grad().cpu() : Tensor(), want.norm_weight, unit,
               fc->options.out_features() + tokens + 8, "norm.weight");
  EXPECT_EQ(x.grad().scalar_type(), input.scalar_type());
}

TEST(CudaGradient, AgreesWithAutogradOfTheFormulas) {
  torch::manual_seed(25);
  constexpr double kFloatUnit = 0x1p-24, kHalfUnit = 0x1p-11, kBrainUnit = 0x1p-8;
  for (const Norm norm : {Norm::none, Norm::rms}) {
    for (const auto& [scale, group] : {kTensor, kRow, kGroups64}) {
      for (const auto& [in_features, out_features] : {std::pair{9, 4}, {300, 70}, {1027, 33}, {70, 600}}) {
        SCOPED_TRACE(std::to_string(in_features) + " -> " + std::to_string(out_features));
        // A structured binding cannot be captured before C++20's defect report 2308.
        const auto fresh = [&, in = in_features, out = out_features, kind = scale, inputs = group] {
          return layer(in, out, true, norm, kind, inputs);
        };
        check(fresh(), torch::randn({19, in_features}), kFloatUnit);
        check(fresh(), torch::randn({3, 2, 5, in_features}), kFloatUnit);
        check(fresh(), torch::randn({in_features}), kFloatUnit);
        check(fresh(), torch::randn({6, in_features}).to(torch::kHalf), kHalfUnit);
        check(fresh(), torch::randn({6, in_features}).to(torch::kBFloat16), kBrainUnit);
      }
    }
  }
  // Two tiles of 2^24 weights: 4096 columns and a rest.
  check(layer(4200, 4096, false, Norm::none), torch::randn({3, 4200}), kFloatUnit);
  check(layer(4200, 4096, false, Norm::none, ScaleGranularity::group, 96), torch::randn({3, 4200}),
        kFloatUnit);
}

// A packed weight keeps its transposed layout. Several backward passes through it, on any stream and inside a
// graph, give the gradient of its codes.
TEST(CudaGradient, OfAPackedWeightIsThatOfItsCodes) {
  torch::manual_seed(30);
  for (const auto dtype : {torch::kBFloat16, torch::kHalf, torch::kFloat}) {
    for (const auto& [scale, group] : {kTensor, kRow, kGroups64}) {
      const bool per_row = scale == ScaleGranularity::row;
      SCOPED_TRACE(c10::toString(dtype) + std::string(per_row ? ", per row" : group != 0 ? ", groups" : ""));
      const auto packed =
          torch_layer::PackedWeight::from_float(torch::randn({72, 260}, torch::device(kGpu)), per_row, group);
      const auto grad = torch::randn({19, 72}, torch::device(kGpu)).to(dtype);
      const auto want =
          torch_layer::ops::linear_backward_input(grad, packed->codes(), packed->scale(), 260, group).cpu();
      const auto expect_same = [&](const Tensor& found, const char* where) {
        EXPECT_TRUE(same_bits(found.cpu(), want)) << where;
      };
      const auto backward = [&] { return torch_layer::ops::linear_backward_input(grad, packed); };
      c10::cuda::getCurrentCUDAStream().synchronize();
      {
        const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
        backward();  // loads the kernels, which a capture does not allow
        c10::cuda::getCurrentCUDAStream().synchronize();
        at::cuda::CUDAGraph graph;
        graph.capture_begin();
        const auto captured = backward();
        graph.capture_end();
        expect_same(backward(), "after a capture");
        graph.replay();
        expect_same(captured, "of a graph");
      }
      expect_same(backward(), "on another stream");
      expect_same(backward(), "a second time");
    }
  }
}

TEST(CudaAutocast, YHasTheAutocastDtypeAndTheParametersStayFloat) {
  torch::manual_seed(26);
  auto cpu = layer(260, 12, true, Norm::rms);
  auto gpu = on_gpu(cpu);
  const auto x = torch::randn({4, 260});
  for (const auto dtype : {torch::kHalf, torch::kBFloat16}) {
    const auto want = cpu(x.to(dtype)).detach();
    const amp::AutocastGuard autocast(torch::kCUDA, dtype);
    const auto y = gpu(x.to(kGpu));
    EXPECT_TRUE(same_bits(y.detach().cpu(), want));
    y.sum().backward();
    EXPECT_EQ(gpu->weight.grad().scalar_type(), torch::kFloat);
    EXPECT_EQ(gpu->norm->weight.grad().scalar_type(), torch::kFloat);
  }
}

TEST(CudaCache, RepacksWhenTheWeightHasChanged) {
  torch::manual_seed(27);
  auto cpu = layer(300, 40, true, Norm::rms);
  auto gpu = on_gpu(cpu);
  const auto x = torch::randn({5, 300});
  const torch::NoGradGuard no_grad;
  gpu(x.to(kGpu));
  gpu(x.to(kGpu));
  EXPECT_EQ(gpu->times_packed(), 1);
  torch::optim::SGD cpu_optimizer(cpu->parameters(), 0.5), gpu_optimizer(gpu->parameters(), 0.5);
  for (int step = 0; step < 3; ++step) {
    // The same gradients on both, so that the weights stay the same to the bit.
    for (std::size_t i = 0; i < cpu->parameters().size(); ++i) {
      cpu->parameters()[i].mutable_grad() = torch::randn_like(cpu->parameters()[i]) * 0.1;
      gpu->parameters()[i].mutable_grad() = cpu->parameters()[i].grad().to(kGpu);
    }
    cpu_optimizer.step();
    gpu_optimizer.step();
    ASSERT_TRUE(gpu->weight.detach().cpu().equal(cpu->weight.detach()));
    EXPECT_TRUE(same_bits(gpu(x.to(kGpu)).detach().cpu(), cpu(x).detach()));
    EXPECT_EQ(gpu->times_packed(), step + 2);
  }
  // Another stream uses what this one has packed. (While there is a gradient, every pass packs.)
  gpu_optimizer.zero_grad();
  const auto there = x.to(kGpu);
  gpu(there);
  EXPECT_EQ(gpu->times_packed(), 5);
  c10::cuda::getCurrentCUDAStream().synchronize();
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  EXPECT_TRUE(same_bits(gpu(there).detach().cpu(), cpu(x).detach()));
  EXPECT_EQ(gpu->times_packed(), 5);
}

TEST(CudaCache, PacksOnceInAGradientAccumulation) {
  torch::manual_seed(31);
  auto fc = on_gpu(layer(300, 40, false, Norm::rms));
  torch::optim::SGD optimizer(fc->parameters(), 0.5);
  const auto x = torch::randn({5, 300}, torch::device(kGpu));
  for (int step = 1; step <= 2; ++step) {
    {
      const nn::GradientAccumulation same_weights;
      for (int part = 0; part < 3; ++part) {
        auto input = (x + part).requires_grad_();
        fc(input).sum().backward();
        EXPECT_TRUE(input.grad().defined());
      }
      EXPECT_EQ(fc->times_packed(), step);
    }
    optimizer.step();
  }
  // SGD moves no version: the pass after it packs anew.
  const torch::NoGradGuard no_grad;
  fc->zero_grad();
  const auto y = fc(x);
  EXPECT_EQ(fc->times_packed(), 3);
  EXPECT_TRUE(
      same_bits(y.cpu(), bit_linear_rows(x.cpu(), fc->weight.cpu(), std::nullopt, fc->norm->weight.cpu(),
                                         Norm::rms, 1e-6F, ScaleGranularity::tensor)));
}

TEST(CudaGraph, ReplayIsTheEagerStep) {
  torch::manual_seed(28);
  auto eager = on_gpu(layer(260, 33, true, Norm::rms));
  auto graphed = on_gpu(eager);
  const auto inputs = torch::randn({4, 20, 260}, torch::device(kGpu));
  const auto step = [](nn::BitLinear& fc, const Tensor& x) {
    for (auto& parameter : fc->parameters()) {
      parameter.mutable_grad() = Tensor();
    }
    const auto y = fc(x);
    y.square().mean().backward();
    const torch::NoGradGuard no_grad;
    for (auto& parameter : fc->parameters()) {
      parameter.sub_(parameter.grad(), 0.5);
    }
    return y.detach();
  };
  const auto stream = c10::cuda::getStreamFromPool();
  c10::cuda::getCurrentCUDAStream().synchronize();
  const c10::cuda::CUDAStreamGuard guard(stream);
  const auto x = inputs[0].clone();
  step(graphed, x);
  step(eager, inputs[0]);
  stream.synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const auto y = step(graphed, x);
  graph.capture_end();
  for (int i = 1; i < 4; ++i) {
    x.copy_(inputs[i]);
    graph.replay();
    const auto want = step(eager, inputs[i]);
    EXPECT_TRUE(same_bits(y.cpu(), want.cpu())) << "replay " << i;
  }
  // A call outside of the graph sees what the replays have made of the weight.
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(same_bits(graphed(x).cpu(), eager(x).cpu()));
}

TEST(CudaGraph, OfInference) {
  torch::manual_seed(29);
  auto cpu = layer(512, 64, true, Norm::rms);
  auto gpu = on_gpu(cpu);
  const torch::NoGradGuard no_grad;
  const auto inputs = torch::randn({3, 1, 512});
  const auto x = inputs[0].to(kGpu);
  gpu(x);
  c10::cuda::getCurrentCUDAStream().synchronize();
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const auto y = gpu(x);
  graph.capture_end();
  EXPECT_EQ(gpu->times_packed(), 1);
  for (int i = 0; i < 3; ++i) {
    x.copy_(inputs[i]);
    graph.replay();
    EXPECT_TRUE(same_bits(y.cpu(), cpu(inputs[i])));
  }
}

TEST(CudaGradScaler, StepsAsOnTheCpu) {
  const auto options = amp::GradScalerOptions().init_scale(1024).growth_interval(2);
  amp::GradScaler cpu(torch::kCPU, options), gpu(kGpu, options);
  auto a = torch::zeros({2}, torch::requires_grad());
  auto b = torch::zeros({2}, torch::dtype(torch::kFloat).device(kGpu).requires_grad(true));
  torch::optim::SGD cpu_optimizer({a}, torch::optim::SGDOptions(0.125).momentum(0.5));
  torch::optim::SGD gpu_optimizer({b}, torch::optim::SGDOptions(0.125).momentum(0.5));
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float value : {1.0F, 2.0F, inf, 3.0F, nan, nan, 0.5F, -1.0F, 4.0F, 1e38F, 2.0F}) {
    const auto gradient = torch::tensor({value, 1.0F});
    cpu_optimizer.zero_grad();
    gpu_optimizer.zero_grad();
    cpu.scale((a * gradient).sum()).backward();
    gpu.scale((b * gradient.to(kGpu)).sum()).backward();
    gpu.unscale_(gpu_optimizer);
    const bool found = gpu.found_inf(gpu_optimizer).item<float>() > 0;
    EXPECT_EQ(cpu.step(cpu_optimizer), !found);
    EXPECT_EQ(gpu.step(gpu_optimizer), !found);
    cpu.update();
    gpu.update();
    EXPECT_TRUE(b.detach().cpu().equal(a.detach())) << value;
    EXPECT_EQ(gpu.state_dict(), cpu.state_dict()) << value;
  }
  EXPECT_GT(gpu.skipped_steps(), 0);
  EXPECT_EQ(gpu.skipped_steps(), cpu.skipped_steps());
}

TEST(CudaErrors, NameWhatWasFound) {
  auto cpu = layer(20, 6, true, Norm::rms);
  auto gpu = on_gpu(cpu);
  for (const bool gradients : {true, false}) {
    const torch::AutoGradMode mode(gradients);
    const auto here = message_of([&] { gpu(torch::zeros({2, 20})); });
    EXPECT_TRUE(here.find("cpu") != std::string::npos && here.find("cuda:0") != std::string::npos) << here;
    const auto there = message_of([&] { cpu(torch::zeros({2, 20}, torch::device(kGpu))); });
    EXPECT_TRUE(there.find("cpu") != std::string::npos && there.find("cuda:0") != std::string::npos) << there;
    EXPECT_NE(message_of([&] { gpu(torch::zeros({2, 21}, torch::device(kGpu))); }).find("[2, 21]"),
              std::string::npos);
    EXPECT_NE(message_of([&] {
                gpu(torch::zeros({2, 20}, torch::dtype(torch::kDouble).device(kGpu)));
              }).find("Double"),
              std::string::npos);
    EXPECT_NE(
        message_of([&] { gpu(torch::zeros({2, 20}, torch::dtype(torch::kInt).device(kGpu))); }).find("Int"),
        std::string::npos);
  }
}

TEST(CudaModule, MovesPacksAndConverts) {
  torch::manual_seed(30);
  const auto x = torch::randn({5, 300});
  for (const auto& [scale, group] : {kTensor, kGroups64}) {
    auto fc = layer(300, 40, true, Norm::rms, scale, group);
    const auto want = fc(x).detach();
    const auto packed = nn::pack(*fc);
    fc->to(kGpu);
    EXPECT_TRUE(same_bits(fc(x.to(kGpu)).detach().cpu(), want));
    for (const auto& [name, tensor] : nn::pack(*fc)) {
      EXPECT_TRUE(tensor.is_cpu() && tensor.equal(packed.at(name))) << name;
    }
    // Codes and scales given, in place of the weight.
    fc->use_packed(packed.at("weight").to(kGpu), packed.at("weight_scale").to(kGpu));
    EXPECT_TRUE(same_bits(fc(x.to(kGpu)).detach().cpu(), want));
    fc->use_packed({}, {});
    fc->to(torch::kCPU);
    EXPECT_TRUE(same_bits(fc(x).detach(), want));
  }

  torch::nn::Sequential model(torch::nn::Linear(300, 40));
  model->to(kGpu);
  nn::convert(*model);
  EXPECT_TRUE(model->forward(x.to(kGpu)).is_cuda());
}

}  // namespace
}  // namespace trit::test

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;  // SKIP_RETURN_CODE of the test
  if (!torch::cuda::is_available()) {
    std::printf("skipped: LibTorch finds no GPU here\n");
    return kSkipped;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

// SPDX-License-Identifier: MIT
//
// The packed weight is reused while the weight stays, and never after it has changed, however that happened.
#include <array>
#include <random>
#include <set>

#include "torch/reference.h"
#include "torch/row_kernels.h"

namespace trit::test {
namespace {

using torch::Tensor;

class Cache : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(21);
    fc = layer(1200, 40, false, Norm::rms);
    x = torch::randn({3, 1200});
  }
  // Forward agrees with the definition on the weight as it is now.
  void expect_current(const char* when) {
    for (int call = 0; call < 3; ++call) {
      const auto y = fc(x).detach();
      EXPECT_TRUE(same_bits(y, bit_linear_rows(x, fc->weight, std::nullopt, fc->norm->weight, Norm::rms,
                                               1e-6F, ScaleGranularity::tensor)))
          << when << ", call " << call;
    }
  }
  nn::BitLinear fc{nullptr};
  Tensor x;
};

TEST_F(Cache, IsUsedWhileTheWeightStays) {
  for (int call = 0; call < 5; ++call) {
    fc(x);
  }
  // The second use of a version takes its fingerprint, and packs once more.
  EXPECT_EQ(fc->times_packed(), 2);
  fc->eval();
  const torch::NoGradGuard no_grad;
  fc(x);
  EXPECT_EQ(fc->times_packed(), 2);
}

TEST_F(Cache, PacksOnceInAGradientAccumulation) {
  torch::optim::SGD optimizer(fc->parameters(), 0.5);  // writes through .data
  for (int step = 1; step <= 3; ++step) {
    {
      const nn::GradientAccumulation same_weights;
      for (int part = 0; part < 4; ++part) {
        fc(x + part).sum().backward();
      }
      EXPECT_EQ(fc->times_packed(), step);
    }
    optimizer.step();
  }
  expect_current("after the last step");
}

TEST_F(Cache, SeesEveryKindOfWrite) {
  expect_current("new");
  {
    const torch::NoGradGuard no_grad;
    fc->weight.mul_(-1.5);
  }
  expect_current("in place");
  fc->weight.data().neg_();
  expect_current(".data write: the sign of every weight, the version stays");
  fc->weight.data()[39][1199] = 3.0F;
  expect_current(".data write of the last element");
  fc->weight.mutable_data_ptr<float>()[7] = -2.0F;
  expect_current("raw pointer");
  fc->weight.set_data(torch::randn({40, 1200}));
  expect_current(".data = other");
  {
    const torch::NoGradGuard no_grad;
    fc->weight.index_put_({0}, fc->weight[1].clone());
  }
  expect_current("rows");
  std::swap_ranges(fc->weight.mutable_data_ptr<float>(), fc->weight.mutable_data_ptr<float>() + 1200,
                   fc->weight.mutable_data_ptr<float>() + 5 * 1200);
  expect_current("rows swapped through a raw pointer");
  fc->options.scale(ScaleGranularity::row);
  EXPECT_TRUE(same_bits(fc(x).detach(), bit_linear_rows(x, fc->weight, std::nullopt, fc->norm->weight,
                                                        Norm::rms, 1e-6F, ScaleGranularity::row)));
}

TEST_F(Cache, SeesAChangeOfDtype) {
  expect_current("float");
  fc->weight.data().mul_(1.001);
  fc->to(torch::kBFloat16);
  expect_current("bfloat16");
  fc->to(torch::kFloat);
  expect_current("float again, rounded");
}

TEST_F(Cache, SeesOptimizerSteps) {
  torch::optim::AdamW optimizer(fc->parameters(), torch::optim::AdamWOptions(0.05));
  for (int step = 0; step < 4; ++step) {
    optimizer.zero_grad();
    fc(x).square().sum().backward();
    optimizer.step();
    expect_current("after a step");
  }
}

TEST_F(Cache, PacksOncePerStepWithoutAccumulation) {
  torch::optim::SGD optimizer(fc->parameters(), 0.01);
  const auto before = fc->times_packed();
  for (int step = 0; step < 5; ++step) {
    optimizer.zero_grad();
    fc(x).square().sum().backward();
    optimizer.step();
  }
  EXPECT_EQ(fc->times_packed() - before, 5);
}

TEST_F(Cache, WorksOnInferenceTensors) {
  const c10::InferenceMode inference;
  auto other = layer(1200, 40, false, Norm::rms);  // its parameters have no version
  ASSERT_TRUE(other->weight.is_inference());
  fc = std::move(other);
  expect_current("inference tensor");
  fc->weight.neg_();
  expect_current("inference tensor, in place");
}

TEST_F(Cache, TransposedWeightsAreNotKept) {
  fc->weight.set_data(torch::randn({1200, 40}).t());
  expect_current("transposed");
  fc->weight.data()[0][0] = 9.0F;
  expect_current("transposed, changed");
}

TEST_F(Cache, BackwardUsesTheCodesOfItsForward) {
  auto input = x.clone().requires_grad_();
  const auto y = fc(input);
  auto other_input = x.clone().requires_grad_();
  fc(other_input).sum().backward();
  {
    const torch::NoGradGuard no_grad;
    fc->weight.neg_();
  }
  fc(x);  // repacks
  y.sum().backward();
  EXPECT_TRUE(torch::equal(input.grad(), other_input.grad()));
}

TEST_F(Cache, IsNotSharedByClones) {
  expect_current("original");
  auto copy = std::dynamic_pointer_cast<nn::BitLinearImpl>(fc->clone());
  {
    const torch::NoGradGuard no_grad;
    copy->weight.neg_();
  }
  EXPECT_TRUE(torch::equal(copy->forward(x), -fc(x)));
  expect_current("original after the clone changed");
}

TEST(Fingerprint, ChangesWithEveryBitPlaceAndLength) {
  std::mt19937_64 generator(22);
  std::vector<std::byte> bytes(64 * 700 + 29);
  for (auto& byte : bytes) {
    byte = static_cast<std::byte>(generator());
  }
  const auto now = [&] { return torch_layer::fingerprint(bytes.data(), bytes.size(), 0); };
  const auto before = now();
  EXPECT_NE(torch_layer::fingerprint(bytes.data(), bytes.size(), 1), before);
  for (int trial = 0; trial < 2000; ++trial) {  // one bit
    auto& byte = bytes[generator() % bytes.size()];
    const auto value = byte;
    byte ^= std::byte{1} << (generator() % 8);
    EXPECT_NE(now(), before);
    byte = value;
  }
  for (int trial = 0; trial < 2000; ++trial) {  // the signs of two floats, and two stripes exchanged
    std::array<std::size_t, 2> at{};
    do {
      at = {generator() % 700 * 64, generator() % 700 * 64};
    } while (at[0] == at[1]);
    bytes[at[0] + 7] ^= std::byte{0x80};
    bytes[at[1] + 7] ^= std::byte{0x80};
    EXPECT_NE(now(), before);
    bytes[at[0] + 7] ^= std::byte{0x80};
    bytes[at[1] + 7] ^= std::byte{0x80};
    std::swap_ranges(bytes.data() + at[0], bytes.data() + at[0] + 64, bytes.data() + at[1]);
    EXPECT_NE(now(), before);
    std::swap_ranges(bytes.data() + at[0], bytes.data() + at[0] + 64, bytes.data() + at[1]);
  }
  EXPECT_EQ(now(), before);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  std::set<std::uint64_t> lengths;
  for (std::size_t length = 0; length < 200; ++length) {
    EXPECT_TRUE(lengths.insert(torch_layer::fingerprint(bytes.data(), length, 0)).second) << length;
  }
}

}  // namespace
}  // namespace trit::test

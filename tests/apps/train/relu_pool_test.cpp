// SPDX-License-Identifier: MIT
#include "train_cifar10/relu_pool.h"

#include <gtest/gtest.h>

#include <limits>

namespace trit::train {
namespace {

torch::Tensor reference(const torch::Tensor& x) { return at::max_pool2d(at::relu(x), 2); }

/// Same bits, a zero's sign too (a NaN equals a NaN).
bool same(const torch::Tensor& a, const torch::Tensor& b) {
  const auto sign = [](const torch::Tensor& t) {
    return torch::signbit(t).logical_and(torch::isnan(t).logical_not());
  };
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         torch::allclose(a, b, 0.0, 0.0, true) && torch::equal(sign(a), sign(b));
}

void expect_same(const torch::Tensor& x) {
  const torch::Tensor a = x.clone().requires_grad_(), b = x.clone().requires_grad_();
  const torch::Tensor ya = relu_max_pool(a), yb = reference(b);
  ASSERT_TRUE(same(ya, yb));
  const torch::Tensor gradient = torch::randn_like(yb);
  ya.backward(gradient);
  yb.backward(gradient);
  ASSERT_TRUE(same(a.grad(), b.grad()));
}

TEST(ReluMaxPool, EqualsAtenInValueAndGradient) {
  torch::manual_seed(1);
  const std::vector<std::vector<std::int64_t>> shapes{{128, 32, 32, 32}, {3, 64, 16, 16}, {1, 1, 2, 2},
                                                      {2, 7, 4, 10},     {5, 17, 6, 2},   {0, 4, 4, 4}};
  for (const auto& shape : shapes) {
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      for (const auto type : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
        SCOPED_TRACE(testing::Message() << at::IntArrayRef(shape) << " " << format << " " << type);
        expect_same(torch::randn(shape).to(type).contiguous(format));
      }
    }
  }
}

// Few values: windows have equal maxima, of which the first gets the gradient. Zeros and negative ones get
// none.
TEST(ReluMaxPool, BreaksTiesAsAten) {
  torch::manual_seed(2);
  for (int i = 0; i < 20; ++i) {
    torch::Tensor x =
        torch::randint(-2, 3, {4, 5, 8, 8}).to(torch::kFloat32).contiguous(at::MemoryFormat::ChannelsLast);
    expect_same(x);
    x.masked_fill_(torch::rand_like(x) < 0.5, -0.0);
    expect_same(x);
  }
}

TEST(ReluMaxPool, KeepsDenormals) {
  torch::manual_seed(5);
  expect_same((torch::randn({4, 5, 8, 8}) * 1e-40).contiguous(at::MemoryFormat::ChannelsLast));
}

TEST(ReluMaxPool, PassesNanAndInfinity) {
  torch::manual_seed(3);
  torch::Tensor x = torch::randn({8, 6, 8, 8}).contiguous(at::MemoryFormat::ChannelsLast);
  const double infinity = std::numeric_limits<double>::infinity();
  x.masked_fill_(torch::rand_like(x) < 0.2, std::numeric_limits<double>::quiet_NaN());
  x.masked_fill_(torch::rand_like(x) < 0.1, infinity);
  x.masked_fill_(torch::rand_like(x) < 0.1, -infinity);
  expect_same(x);
}

TEST(ReluMaxPool, DoesNotDependOnThreads) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({16, 32, 32, 32}).contiguous(at::MemoryFormat::ChannelsLast);
  const int threads = torch::get_num_threads();
  torch::set_num_threads(1);
  const torch::Tensor one = relu_max_pool(x);
  torch::set_num_threads(3);
  const torch::Tensor three = relu_max_pool(x);
  torch::set_num_threads(threads);
  EXPECT_TRUE(same(one, three));
}

TEST(ReluMaxPool, RefusesOddSizes) {
  EXPECT_THROW(relu_max_pool(torch::randn({1, 3, 5, 4})), c10::Error);
  EXPECT_THROW(relu_max_pool(torch::randn({3, 4, 4})), c10::Error);
}

}  // namespace
}  // namespace trit::train

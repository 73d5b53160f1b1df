// SPDX-License-Identifier: MIT
//
// AutocastGuard and GradScaler. grad_scaler_test.py compares the values with torch.amp.GradScaler's; here are
// the errors, the other optimizers and the archives.
#include <ATen/autocast_mode.h>

#include <limits>
#include <sstream>

#include "torch/reference.h"

namespace trit::test {
namespace {

using torch::Tensor;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool enabled() { return at::autocast::is_autocast_enabled(torch::kCPU); }
auto dtype() { return at::autocast::get_autocast_dtype(torch::kCPU); }

TEST(AutocastGuard, RestoresTheStateBefore) {
  ASSERT_FALSE(enabled());
  const auto before = dtype();
  {
    const amp::AutocastGuard outer(torch::kCPU, torch::kHalf);
    EXPECT_TRUE(enabled());
    EXPECT_EQ(dtype(), torch::kHalf);
    {
      const amp::AutocastGuard inner(torch::kCPU, torch::kBFloat16, false);
      EXPECT_FALSE(enabled());
      const amp::AutocastGuard innermost(torch::kCPU, torch::kBFloat16);
      EXPECT_EQ(torch::mm(torch::ones({2, 2}), torch::ones({2, 2})).scalar_type(), torch::kBFloat16);
    }
    EXPECT_TRUE(enabled());
    EXPECT_EQ(dtype(), torch::kHalf);
  }
  EXPECT_FALSE(enabled());
  EXPECT_EQ(dtype(), before);
}

TEST(AutocastGuard, RestoresOnExceptions) {
  const auto before = dtype();
  try {
    const amp::AutocastGuard guard(torch::kCPU, torch::kHalf);
    throw std::runtime_error("from within");
  } catch (const std::runtime_error&) {
    EXPECT_FALSE(enabled());
    EXPECT_EQ(dtype(), before);
  }
  EXPECT_THROW(amp::AutocastGuard(torch::kCPU, torch::kDouble), c10::Error);
  EXPECT_FALSE(enabled());
}

TEST(AutocastGuard, DropsHalfCopiesWithTheOutermostScope) {
  torch::nn::Linear fc(4, 4);
  const auto x = torch::ones({1, 4});
  Tensor first;
  {
    const amp::AutocastGuard guard(torch::kCPU, torch::kBFloat16);
    first = fc(x).detach();
  }
  {
    const torch::NoGradGuard no_grad;
    fc->weight.add_(1.0F);
  }
  const amp::AutocastGuard guard(torch::kCPU, torch::kBFloat16);
  EXPECT_FALSE(torch::equal(fc(x), first));
}

struct Scaled {
  explicit Scaled(amp::GradScalerOptions options = amp::GradScalerOptions().init_scale(8))
      : optimizer({parameter}, 0.5), scaler(torch::kCPU, options) {}
  void gradient(float value) { parameter.mutable_grad() = torch::full({3}, value); }
  Tensor parameter = torch::ones({3}, torch::requires_grad());
  torch::optim::SGD optimizer;
  amp::GradScaler scaler;
};

template <typename Call>
std::string message(const Call& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(GradScaler, RefusesCallsOutOfOrder) {
  Scaled s;
  EXPECT_NE(message([&] { s.scaler.update(); }).find("No inf checks were recorded prior to update."),
            std::string::npos);
  EXPECT_NE(
      message([&] { s.scaler.step(s.optimizer); }).find("No inf checks were recorded for this optimizer."),
      std::string::npos);
  Scaled t;
  t.gradient(1);
  t.scaler.unscale_(t.optimizer);
  EXPECT_NE(message([&] { t.scaler.unscale_(t.optimizer); }).find("already been called"), std::string::npos);
  EXPECT_TRUE(t.scaler.step(t.optimizer));
  EXPECT_NE(message([&] { t.scaler.step(t.optimizer); }).find("step() has already been called"),
            std::string::npos);
  EXPECT_NE(message([&] { t.scaler.unscale_(t.optimizer); }).find("after step()"), std::string::npos);
  t.scaler.update();
  t.gradient(1);
  EXPECT_TRUE(t.scaler.step(t.optimizer));  // a new round
  EXPECT_THROW(amp::GradScaler(torch::kCPU, amp::GradScalerOptions().growth_factor(1.0)), c10::Error);
  EXPECT_THROW(amp::GradScaler(torch::kCPU, amp::GradScalerOptions().backoff_factor(1.0)), c10::Error);
}

TEST(GradScaler, RefusesHalfGradients) {
  auto parameter = torch::ones({3}, torch::dtype(torch::kHalf).requires_grad(true));
  parameter.mutable_grad() = torch::ones({3}, torch::kHalf);
  torch::optim::SGD optimizer({parameter}, 0.5);
  amp::GradScaler scaler;
  EXPECT_NE(message([&] { scaler.step(optimizer); }).find("Attempting to unscale FP16 gradients."),
            std::string::npos);
}

TEST(GradScaler, SkipsAndReports) {
  Scaled s;
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    s.gradient(1);
    s.parameter.mutable_grad()[1] = bad;
    EXPECT_FALSE(s.scaler.step(s.optimizer));
    s.scaler.update();
  }
  EXPECT_EQ(s.scaler.skipped_steps(), 3);
  EXPECT_EQ(s.scaler.get_scale(), 1.0);
  EXPECT_TRUE(s.parameter.detach().eq(1).all().item<bool>());
}

TEST(GradScaler, TwoOptimizersShareTheScale) {
  amp::GradScaler scaler(torch::kCPU, amp::GradScalerOptions().init_scale(4));
  Scaled good;
  Scaled bad;
  good.gradient(4);
  bad.gradient(kInfinity);
  EXPECT_TRUE(scaler.step(good.optimizer));
  EXPECT_FALSE(scaler.step(bad.optimizer));
  scaler.update();
  EXPECT_EQ(scaler.get_scale(), 2.0);
  EXPECT_FLOAT_EQ(good.parameter[0].item<float>(), 0.5F);
}

TEST(GradScaler, WorksWithAnyOptimizer) {
  auto run = [](auto&& make, bool scaled) {
    auto parameter = torch::full({4}, 2.0F).requires_grad_();
    auto optimizer = make(std::vector<Tensor>{parameter});
    amp::GradScaler scaler(torch::kCPU, amp::GradScalerOptions().enabled(scaled));
    for (int step = 0; step < 5; ++step) {
      optimizer.zero_grad();
      scaler.scale(parameter.square().sum()).backward();
      EXPECT_TRUE(scaler.step(optimizer));
      scaler.update();
    }
    return parameter.detach();
  };
  // 65536 is a power of two: scaling and unscaling are exact.
  const auto same = [&](auto&& make) { EXPECT_TRUE(torch::equal(run(make, true), run(make, false))); };
  same([](const auto& p) { return torch::optim::SGD(p, torch::optim::SGDOptions(0.1).momentum(0.9)); });
  same([](const auto& p) { return torch::optim::AdamW(p, torch::optim::AdamWOptions(0.1)); });
  same([](const auto& p) { return torch::optim::Adagrad(p, torch::optim::AdagradOptions(0.1)); });
  same([](const auto& p) { return torch::optim::RMSprop(p, torch::optim::RMSpropOptions(0.1)); });
}

TEST(GradScaler, UnscalesSparseGradients) {
  auto table = torch::ones({6, 2}, torch::requires_grad());
  torch::optim::SGD optimizer({table}, 1.0);
  amp::GradScaler scaler(torch::kCPU, amp::GradScalerOptions().init_scale(4));
  const auto lookup = [&] {
    return torch::embedding(table, torch::tensor({1, 1, 4}), -1, false, /*sparse=*/true).sum();
  };
  scaler.scale(lookup()).backward();
  ASSERT_TRUE(table.grad().is_sparse());
  scaler.unscale_(optimizer);
  EXPECT_FLOAT_EQ(table.grad().to_dense()[1][0].item<float>(), 2.0F);  // two look-ups of row 1
  EXPECT_TRUE(scaler.step(optimizer));
  EXPECT_FLOAT_EQ(table[1][0].item<float>(), -1.0F);
  scaler.update();
  optimizer.zero_grad();
  scaler.scale(lookup() * kInfinity).backward();
  EXPECT_FALSE(scaler.step(optimizer));
  EXPECT_EQ(scaler.skipped_steps(), 1);
}

TEST(GradScaler, DisabledPassesThrough) {
  Scaled s(amp::GradScalerOptions().enabled(false));
  const auto loss = torch::ones({});
  EXPECT_TRUE(s.scaler.scale(loss).is_same(loss));
  s.gradient(1);
  s.scaler.unscale_(s.optimizer);
  EXPECT_TRUE(s.scaler.step(s.optimizer));
  s.scaler.update();
  EXPECT_EQ(s.scaler.get_scale(), 1.0);
  EXPECT_TRUE(s.scaler.state_dict().empty());
  EXPECT_FLOAT_EQ(s.parameter[0].item<float>(), 0.5F);
}

TEST(GradScaler, StateTravels) {
  Scaled s(amp::GradScalerOptions().init_scale(32).growth_factor(4).backoff_factor(0.25).growth_interval(3));
  s.gradient(1);
  s.scaler.step(s.optimizer);
  s.scaler.update();
  std::stringstream bytes;
  torch::serialize::OutputArchive out;
  s.scaler.save(out);
  out.save_to(bytes);
  torch::serialize::InputArchive in;
  in.load_from(bytes);
  amp::GradScaler other;
  other.load(in);
  EXPECT_EQ(other.state_dict(), s.scaler.state_dict());
  EXPECT_EQ(other.state_dict().at("_growth_tracker"), 1.0);
  EXPECT_NE(message([&] { other.load_state_dict({}); }).find("empty"), std::string::npos);
  EXPECT_NE(message([&] { other.load_state_dict({{"scale", 1.0}}); }).find("growth"), std::string::npos);
  EXPECT_EQ(other.state_dict(), s.scaler.state_dict());  // a bad state changes nothing
  other.update(128.0);
  EXPECT_EQ(other.get_scale(), 128.0);
  EXPECT_THROW(other.update(kInfinity), c10::Error);
}

}  // namespace
}  // namespace trit::test

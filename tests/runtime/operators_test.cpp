// SPDX-License-Identifier: MIT
//
// gelu and batch_norm against their formulas in double precision, with every library for float layers, alone
// and among the operators that change the order of values; and what their attributes may be.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "runtime/float_cases.h"
#include "runtime/model_file.h"
#include "trit/error.h"
#include "trit/model.h"

namespace trit::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The model on x by every library, within its bound; NaN and infinities where the formula has them.
void check(const ModelFile& model, const std::vector<float>& x) {
  const TemporaryPath path("operators.safetensors");
  model.save(path.get());
  const std::vector<Bounded> wanted = model.reference(x);
  for (const char* library : {"builtin", ""}) {
    SCOPED_TRACE(library);
    ::setenv("TRIT_DENSE", library, 1);
    const std::vector<float> y = Model::load(path.get()).run(x, 1);
    ::unsetenv("TRIT_DENSE");
    ASSERT_EQ(y.size(), wanted.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto value = static_cast<double>(y[i]);
      if (std::isfinite(wanted[i].value)) {
        ASSERT_LE(std::fabs(value - wanted[i].value), wanted[i].error) << "value " << i << " is " << y[i];
      } else {
        ASSERT_TRUE(std::isnan(wanted[i].value) ? std::isnan(y[i]) : value == wanted[i].value)
            << "value " << i << " is " << y[i] << ", wanted " << wanted[i].value;
      }
    }
  }
}

TEST(Gelu, IsItsFormula) {
  for (const char* approximate : {"none", "tanh"}) {
    SCOPED_TRACE(approximate);
    std::vector<float> x{0.0F, -0.0F, 1e-45F,    -1e-45F,    1e-39F, -1e-39F, 3.4e38F, -3.4e38F,
                         kNan, -kNan, kInfinity, -kInfinity, 1e20F,  -1e20F,  -40.0F,  40.0F};
    for (int i = -1200; i <= 1200; ++i) {
      x.push_back(static_cast<float>(i) * 0.01F);
    }
    ModelFile model({std::ssize(x)}, 5000);
    model.gelu(0, approximate);
    check(model, x);
  }
}

TEST(Gelu, SpecialValues) {
  ModelFile model({6}, 5001);
  model.gelu(0, "none");
  const TemporaryPath path("gelu.safetensors");
  model.save(path.get());
  const std::vector<float> y =
      Model::load(path.get()).run(std::vector<float>{-kInfinity, kInfinity, kNan, -1e30F, -0.0F, 0.0F}, 1);
  EXPECT_TRUE(std::isnan(y[0]));  // -infinity * 0
  EXPECT_EQ(y[1], kInfinity);
  EXPECT_TRUE(std::isnan(y[2]));
  for (std::size_t i = 3; i < 6; ++i) {
    EXPECT_EQ(y[i], 0.0F);
    EXPECT_EQ(std::signbit(y[i]), i < 5);
  }
}

TEST(Gelu, BetweenOtherOperators) {
  ModelFile model({3, 9, 9}, 5002);
  std::size_t at = model.gelu(model.conv2d("a", 0, 3, 20, 3, 1, 1), "none");
  at = model.pool("max_pool2d", model.relu(model.gelu(at, "tanh")), 2, 2);
  at = model.gelu(model.conv2d("b", at, 20, 7, 2, 1, 0), "tanh");
  model.gelu(model.linear("c", model.flatten(at), 7 * 9, 5), "none");
  check(model, model.random(3 * 81, -2, 2));
}

TEST(BatchNorm, IsItsFormula) {
  for (const Shape& shape : {Shape{1}, Shape{37}, Shape{5, 7}, Shape{20, 6, 5}, Shape{16, 4, 4}}) {
    for (const bool affine : {false, true}) {
      ModelFile model(shape, 5100);
      model.batch_norm("n", 0, shape[0]);
      if (!affine) {
        model.erase("n.weight");
        model.erase("n.bias");
        model.graph["nodes"][1].erase("eps");
      }
      std::size_t count = 1;
      for (const std::int64_t size : shape) {
        count *= static_cast<std::size_t>(size);
      }
      check(model, model.random(count, -3, 3));
      std::mt19937 generator(5101);
      for (int i = 0; i < 20; ++i) {
        check(model, random_special_values(count, generator));
      }
    }
  }
}

/// In front of other operators, behind them, and as a part of their weights.
TEST(BatchNorm, BetweenOtherOperators) {
  for (const bool bias : {false, true}) {
    ModelFile model({3, 10, 10}, 5200);
    const std::size_t first = model.conv2d("a", 0, 3, 20, 3, 1, 1, bias);
    std::size_t at = model.relu(model.batch_norm("joins", first, 20));
    at = model.batch_norm("alone", model.pool("max_pool2d", at, 2, 2), 20);
    at = model.add(at, model.batch_norm("b.norm", model.conv2d("b", at, 20, 20, 3, 1, 1, bias), 20));
    at = model.relu(model.batch_norm("behind a sum", at, 20));
    at = model.linear("c", model.flatten(at), 20 * 25, 6, bias);
    model.batch_norm("d", at, 6);
    check(model, model.random(300, -2, 2));
  }
}

TEST(BatchNorm, OfRowsIsNoPartOfTheirWeights) {
  ModelFile model({4, 6}, 5300);  // the channels are the first dimension, the outputs the last
  model.batch_norm("n", model.linear("a", 0, 6, 4), 4);
  check(model, model.random(24, -2, 2));
}

/// Special values behind weights that scale and shift have become a part of.
TEST(BatchNorm, InWeightsPassesSpecialValues) {
  std::mt19937 generator(5400);
  ModelFile model({3, 5, 5}, 5401);
  model.batch_norm("n", model.conv2d("a", 0, 3, 4, 2, 1, 0), 4);
  for (int i = 0; i < 50; ++i) {
    std::vector<float> x = model.random(75, -2, 2);
    x[generator() % 75] = i % 3 == 0 ? kNan : i % 3 == 1 ? kInfinity : -kInfinity;
    check(model, x);
  }
}

TEST(BatchNorm, PyTorchsCounterMeansNothing) {
  ModelFile model({3}, 5500);
  model.batch_norm("n", 0, 3);
  model.tensors.push_back({"n.num_batches_tracked", "I64", {}, std::vector<std::byte>(8)});
  check(model, {1, 2, 3});
  const TemporaryPath path("layers.safetensors");
  model.save(path.get());
  const Model loaded = Model::load(path.get());
  ASSERT_EQ(loaded.layers().size(), 1U);
  EXPECT_EQ(loaded.layers()[0].op, "batch_norm");
  EXPECT_EQ(loaded.layers()[0].shape, Shape{3});
  EXPECT_EQ(loaded.layers()[0].stored_bytes, 4U * 3 * 4 + 8);
}

std::string refusal(const ModelFile& model) {
  const TemporaryPath path("refused.safetensors");
  model.save(path.get());
  try {
    Model::load(path.get());
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Operators, Refusals) {
  const auto expect_says = [](const ModelFile& model, const std::string& text) {
    EXPECT_NE(refusal(model).find(text), std::string::npos) << refusal(model);
  };
  ModelFile gelu({3}, 5600);
  gelu.gelu(0, "erf");
  expect_says(gelu, "node 1 (gelu): \"approximate\" is \"erf\", wanted \"none\" or \"tanh\"");
  gelu.graph["nodes"][1].erase("approximate");
  expect_says(gelu, "node 1 (gelu): no \"approximate\"");
  ModelFile norm({3}, 5601);
  norm.batch_norm("n", 0, 3);
  norm.set_floats("n.running_var", {3}, {1, -1, 1});
  expect_says(norm, "node 1 (batch_norm \"n\"): running_var[1] is -1");
  norm.set_floats("n.running_var", {2}, {1, 1});
  expect_says(norm, "\"n.running_var\"");
  norm.set_floats("n.running_var", {3}, {1, 1, 1});
  norm.graph["nodes"][1]["eps"] = 0;
  expect_says(norm, "\"eps\" is 0, wanted a positive number");
  norm.graph["nodes"][1]["eps"] = 1e-30;
  norm.set_floats("n.running_var", {3}, {1, 1, 0});
  norm.set_floats("n.weight", {3}, {1, 1, 1e30F});
  expect_says(norm, "channel 2 is scaled by inf");
}

}  // namespace
}  // namespace trit::test

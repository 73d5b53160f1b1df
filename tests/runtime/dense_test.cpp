// SPDX-License-Identifier: MIT
//
// Float layers against the reference in double precision, within the bound that it derives, for both
// libraries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "runtime/model_file.h"
#include "runtime/same_bits.h"
#include "trit/error.h"
#include "trit/model.h"

namespace trit::test {
namespace {

/// Sets TRIT_DENSE for one scope.
class DenseChoice {
 public:
  explicit DenseChoice(const char* library) { ::setenv("TRIT_DENSE", library, 1); }
  ~DenseChoice() { ::unsetenv("TRIT_DENSE"); }
  DenseChoice(const DenseChoice&) = delete;
  DenseChoice& operator=(const DenseChoice&) = delete;
};

std::vector<const char*> libraries() {
  std::vector<const char*> found{"builtin"};
  ModelFile model({2});
  model.relu(0);
  const TemporaryPath path("probe.safetensors");
  model.save(path.get());
  if (Model::load(path.get()).dense_library() != "built-in") {
    found.push_back("onednn");
    found.push_back("onednn-bf16-pairs");
  }
  return found;
}

/// Of a product of two numbers as bf16 pairs: src/runtime/bf16_pairs.h.
const double kPairError = 3 * std::ldexp(1.0, -16);

bool uses_pairs(const Model& model) { return model.dense_library().ends_with("bf16 pairs"); }

void check(ModelFile& model, std::int64_t batch, int threads = 0) {
  const TemporaryPath path("dense.safetensors");
  model.save(path.get());
  std::size_t in = 1;
  for (const std::int64_t dimension : model.graph["input"]["shape"].get<Shape>()) {
    in *= static_cast<std::size_t>(dimension);
  }
  const std::vector<float> x = model.random(in * static_cast<std::size_t>(batch), -2, 2);
  for (const char* library : libraries()) {
    SCOPED_TRACE(library);
    const DenseChoice choice(library);
    const Model loaded = Model::load(path.get(), {.threads = threads});
    const double product_error = uses_pairs(loaded) ? kPairError : 0;
    std::vector<std::vector<Bounded>> wanted;
    for (std::size_t image = 0; image < static_cast<std::size_t>(batch); ++image) {
      wanted.push_back(model.reference({x.begin() + static_cast<std::ptrdiff_t>(image * in),
                                        x.begin() + static_cast<std::ptrdiff_t>((image + 1) * in)},
                                       product_error));
    }
    const std::vector<float> y = loaded.run(x, batch);
    ASSERT_EQ(y.size(), wanted.empty() ? 0 : wanted.size() * wanted[0].size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      const Bounded& at = wanted[i / wanted[0].size()][i % wanted[0].size()];
      ASSERT_LE(std::fabs(static_cast<double>(y[i]) - at.value), at.error)
          << "value " << i << ": " << y[i] << ", wanted " << at.value;
    }
  }
}

TEST(Dense, ConvolutionShapes) {
  struct Case {
    std::int64_t channels, height, width, out, kernel, stride, padding;
  };
  const Case cases[] = {{1, 1, 1, 1, 1, 1, 0},   {3, 8, 8, 32, 3, 1, 1},  {5, 9, 7, 6, 3, 2, 1},
                        {4, 12, 19, 7, 5, 3, 2}, {32, 6, 6, 33, 1, 1, 0}, {2, 5, 5, 3, 5, 1, 0},
                        {16, 4, 4, 16, 3, 1, 3}, {3, 4, 4, 5, 2, 1, 2},   {1, 3, 40, 4, 3, 1, 1},
                        {6, 7, 7, 9, 1, 2, 1}};
  unsigned seed = 100;
  for (const Case& c : cases) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE("seed " + std::to_string(++seed));
      ModelFile model({c.channels, c.height, c.width}, seed);
      model.conv2d("conv", 0, c.channels, c.out, c.kernel, c.stride, c.padding, bias);
      check(model, 3);
      model.relu(1);
      check(model, 1);
    }
  }
}

/// The built-in loops take columns by eight where no window touches the padding: every remainder, both sides.
TEST(Dense, ConvolutionWidths) {
  for (std::int64_t width = 1; width <= 20; ++width) {
    for (const auto& [kernel, stride] : {std::pair{3, 1}, {3, 2}, {5, 1}}) {
      SCOPED_TRACE("width " + std::to_string(width) + ", kernel " + std::to_string(kernel));
      ModelFile model({2, 3, width}, static_cast<unsigned>(150 + width));
      model.conv2d("conv", 0, 2, 5, kernel, stride, kernel / 2);
      check(model, 1);
    }
  }
}

TEST(Dense, PoolsWithWindowsThatDoNotDivide) {
  unsigned seed = 200;
  for (const char* op : {"max_pool2d", "avg_pool2d"}) {
    for (const auto& [kernel, stride] : {std::pair{2, 2}, {3, 2}, {3, 1}, {2, 3}, {1, 1}, {7, 5}}) {
      SCOPED_TRACE(std::string(op) + " seed " + std::to_string(++seed));
      ModelFile model({5, 7, 11}, seed);
      model.pool(op, 0, kernel, stride);
      check(model, 4);
    }
  }
}

TEST(Dense, LinearOnRowsOfTheLastDimension) {
  for (const Shape& shape : {Shape{1}, Shape{17}, Shape{300}, Shape{4, 33}, Shape{2, 3, 16}}) {
    ModelFile model(shape, 300);
    model.linear("fc", 0, shape.back(), 19);
    check(model, 5);
    model.relu(1);
    model.linear("head", 2, 19, 3, false);
    check(model, 2);
  }
}

TEST(Dense, ChainsKeepTheirOrderThroughFlatten) {
  ModelFile model({3, 16, 16}, 400);
  std::size_t at =
      model.relu(model.conv2d("a", 0, 3, 20, 3, 1, 1));  // 20 channels: padded in blocked layouts
  at = model.pool("max_pool2d", at, 2, 2);
  at = model.relu(model.conv2d("b", at, 20, 12, 3, 1, 0));
  at = model.flatten(model.pool("avg_pool2d", at, 2, 2));
  model.linear("c", at, 12 * 3 * 3, 10);
  for (const std::int64_t batch : {0, 1, 7}) {
    check(model, batch);
  }
  check(model, 5, 1);
  check(model, 5, 3);
}

TEST(Dense, ResidualSums) {
  ModelFile model({8, 6, 6}, 500);
  const std::size_t a = model.relu(model.conv2d("a", 0, 8, 24, 3, 1, 1));
  const std::size_t b = model.conv2d("b", a, 24, 24, 3, 1, 1);
  const std::size_t sum = model.relu(model.add(b, a));  // b is read by the sum alone, a twice
  const std::size_t c = model.conv2d("c", sum, 24, 8, 1, 1, 0);
  const std::size_t twice = model.add(c, 0);  // blocked plus row-major
  model.flatten(model.add(twice, twice));
  check(model, 4);
}

TEST(Dense, ReluJoinsOnlyALayerThatNobodyElseReads) {
  ModelFile model({4, 5, 5}, 600);
  const std::size_t conv = model.conv2d("a", 0, 4, 4, 3, 1, 1);
  const std::size_t relu = model.relu(conv);
  model.add(conv, relu);  // reads the sums before the ReLU too
  check(model, 3);
}

TEST(Dense, APoolJoinsOnlyAConvolutionThatNobodyElseReads) {
  ModelFile model({4, 6, 6}, 650);
  const std::size_t first = model.conv2d("a", 0, 4, 20, 3, 1, 1);
  const std::size_t relu = model.relu(first);
  const std::size_t largest = model.pool("max_pool2d", relu, 2, 2);  // three read the ReLU
  const std::size_t mean = model.pool("avg_pool2d", relu, 2, 2);
  const std::size_t second = model.conv2d("b", relu, 20, 20, 2, 2, 0);
  const std::size_t sum = model.add(model.add(largest, mean), second);
  model.pool("avg_pool2d", model.pool("max_pool2d", sum, 2, 1), 2, 1);  // a pool behind a pool
  check(model, 3);
}

TEST(Dense, EveryResultMayBeTheOutput) {
  ModelFile flat({2, 3, 4}, 700);
  flat.flatten(0);
  check(flat, 3);
  ModelFile relu({2, 3, 4}, 701);
  relu.relu(0);
  check(relu, 3);
  ModelFile both({2, 4, 4}, 702);
  const std::size_t conv = both.conv2d("a", 0, 2, 17, 3, 1, 1);
  const std::size_t flattened = both.flatten(conv);
  const std::size_t again = both.flatten(both.relu(conv));
  both.relu(both.add(flattened, again));
  check(both, 3);
}

/// Where there is no AMX "onednn-bf16-pairs" is fp32 too, and this repeats ConvolutionShapes.
TEST(Dense, ConvolutionsInPairs) {
  struct Case {
    std::int64_t channels, height, width, out, kernel, stride, padding;
  };
  const Case cases[] = {{16, 8, 8, 32, 3, 1, 1},   {17, 9, 7, 33, 3, 2, 1},  {31, 12, 19, 7, 5, 3, 2},
                        {33, 6, 6, 1, 1, 1, 0},    {64, 4, 4, 16, 3, 1, 3},  {15, 8, 8, 32, 3, 1, 1},
                        {16, 12, 12, 28, 2, 2, 0}, {48, 9, 12, 28, 2, 2, 0}, {40, 16, 12, 33, 4, 4, 0}};
  unsigned seed = 800;
  for (const Case& c : cases) {
    SCOPED_TRACE("seed " + std::to_string(++seed));
    ModelFile model({c.channels, c.height, c.width}, seed);
    model.conv2d("conv", 0, c.channels, c.out, c.kernel, c.stride, c.padding);
    check(model, 3);
    check(model, 1, 1);
    const TemporaryPath path("pairs.safetensors");
    model.save(path.get());
    EXPECT_FALSE(uses_pairs(Model::load(path.get()))) << "pairs must be asked for";
    if (libraries().size() > 1) {
      const DenseChoice choice("onednn");
      EXPECT_FALSE(uses_pairs(Model::load(path.get())));
    }
  }
}

/// A value that is infinite, or NaN, or that rounds to infinity as bf16 stays one that is not finite where it
/// counts once, and does not touch other pixels.
TEST(Dense, ValuesThatAreNotFinite) {
  ModelFile model({16, 5, 5}, 900);
  model.conv2d("conv", 0, 16, 4, 3, 1, 1);
  const TemporaryPath path("not_finite.safetensors");
  model.save(path.get());
  for (const char* library : libraries()) {
    SCOPED_TRACE(library);
    const DenseChoice choice(library);
    const Model loaded = Model::load(path.get());
    for (const float value : {INFINITY, -INFINITY, std::nanf(""), 3.4e38F}) {
      std::vector<float> x(16 * 25, 0.5F);
      const std::vector<float> clean = loaded.run(x, 1);
      x[3 * 25] = value;  // a corner: four of 25 outputs of each channel see it
      const std::vector<float> y = loaded.run(x, 1);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const std::size_t row = i % 25 / 5, column = i % 5;
        if (row > 1 || column > 1) {
          ASSERT_EQ(y[i], clean[i]) << value << " at " << i;
        } else if (!std::isfinite(value)) {
          ASSERT_FALSE(std::isfinite(y[i])) << value << " at " << i;
        }
      }
    }
  }
}

/// A ReLU behind a linear layer, which the libraries fuse, is the ReLU of what the layer alone gives.
TEST(Dense, ReluOfALinearLayerPassesNanAndInfinity) {
  ModelFile alone({16}, 920), fused({16}, 920);  // the same weights
  alone.linear("fc", 0, 16, 33);
  fused.relu(fused.linear("fc", 0, 16, 33));
  const TemporaryPath alone_path("alone.safetensors"), fused_path("fused.safetensors");
  alone.save(alone_path.get());
  fused.save(fused_path.get());
  for (const char* library : libraries()) {
    SCOPED_TRACE(library);
    const DenseChoice choice(library);
    const Model one = Model::load(alone_path.get()), other = Model::load(fused_path.get());
    for (const float value : {INFINITY, -INFINITY, std::nanf(""), 1e-40F, 1.0F}) {
      std::vector<float> x(3 * 16, 0.5F);
      x[16 + 7] = value;
      const std::vector<float> wanted = one.run(x, 3), found = other.run(x, 3);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        const bool second = i / 33 == 1;
        ASSERT_EQ(second && std::isnan(value), std::isnan(found[i])) << value << " at " << i;
        if (!std::isnan(value)) {
          ASSERT_EQ(found[i], std::max(wanted[i], 0.0F)) << value << " at " << i;
        }
      }
    }
  }
}

#if defined(__x86_64__)
/// A thread that flushes denormals starts OpenMP threads that do so too.
TEST(Dense, ACallerThatFlushesDenormalsChangesNothing) {
  ModelFile model({4, 30, 30}, 950);
  std::size_t at = model.relu(model.conv2d("a", 0, 4, 8, 3, 1, 1, false));
  at = model.pool("avg_pool2d", model.add(at, at), 2, 2);
  model.linear("b", model.flatten(at), 8 * 15 * 15, 50, false);
  const TemporaryPath path("flush.safetensors");
  model.save(path.get());
  for (const char* library : {"builtin", "onednn"}) {
    if (libraries().size() == 1 && std::string(library) != "builtin") {
      continue;  // not in this build
    }
    SCOPED_TRACE(library);
    const DenseChoice choice(library);
    std::vector<float> x = model.random(5 * 4 * 900, -2, 2);
    std::transform(x.begin(), x.end(), x.begin(), [](float v) { return v * 1e-39F; });
    const std::vector<float> wanted = Model::load(path.get(), {.threads = 3}).run(x, 5);
    EXPECT_NE(std::count(wanted.begin(), wanted.end(), 0.0F), std::ssize(wanted)) << "no denormal in y";
    std::vector<float> found;
    unsigned after = 0;
    std::thread([&] {
      constexpr unsigned kFlush = 0x9fc0;
      _mm_setcsr(kFlush);
      found = Model::load(path.get(), {.threads = 3}).run(x, 5);
      after = _mm_getcsr() & ~0x3fU;
    }).join();
    expect_same_bits(found, wanted);
    EXPECT_EQ(after, 0x9fc0U & ~0x3fU);
  }
}
#endif

TEST(Dense, UnknownLibrary) {
  ModelFile model({2});
  model.relu(0);
  const TemporaryPath path("unknown.safetensors");
  model.save(path.get());
  const DenseChoice choice("mkl");
  try {
    Model::load(path.get());
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("\"mkl\""), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("builtin"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace trit::test

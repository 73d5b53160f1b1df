// SPDX-License-Identifier: MIT
//
// 3x3 convolutions by Winograd's algorithm against the definition in double precision, on every instruction
// set that this CPU has.
#include "runtime/winograd/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>

#include "runtime/winograd/kernel.h"

namespace trit::test {
namespace {

using runtime::ConvolutionShape;
using runtime::ImageOrder;
using runtime::WinogradConvolution;
using runtime::winograd::kPatch;
using runtime::winograd::kTile;
using runtime::winograd::kWindow;

constexpr double kUnit = 0x1p-24;       // an fp32 operation is off by this share of its result,
constexpr double kSmallest = 0x1p-149;  // or by half of this where the result is denormal
constexpr double kLargest = std::numeric_limits<float>::max();

std::vector<const runtime::winograd::Kernel*> kernels() {
  std::vector<const runtime::winograd::Kernel*> found;
  for (const std::string& name : available_backends()) {
    const auto* const kernel = runtime::winograd_kernel(backend_from_name(name));
    if (kernel != nullptr && (found.empty() || found.back() != kernel)) {
      found.push_back(kernel);
    }
  }
  if (found.empty()) {
    std::cout << "this CPU has none of the instruction sets: only what must hold without them is tested\n";
  }
  return found;
}

/// A layer with images. Values in planes order.
struct Case {
  ConvolutionShape shape;
  std::int64_t batch;
  std::vector<float> weight, bias, x;

  Case(ConvolutionShape s, std::int64_t images, unsigned seed, bool with_bias = true)
      : shape(s), batch(images) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&](std::vector<float>& values, std::int64_t count) {
      values.resize(static_cast<std::size_t>(count));
      std::generate(values.begin(), values.end(), [&] { return normal(generator); });
    };
    draw(weight, s.out_channels * s.channels * kWindow * kWindow);
    draw(bias, with_bias ? s.out_channels : 0);
    draw(x, batch * s.channels * s.height * s.width);
  }

  float weight_at(std::int64_t n, std::int64_t c, std::int64_t i, std::int64_t j) const {
    return weight[static_cast<std::size_t>(((n * shape.channels + c) * kWindow + i) * kWindow + j)];
  }
  std::size_t x_index(std::int64_t image, std::int64_t c, std::int64_t row, std::int64_t column) const {
    return static_cast<std::size_t>(((image * shape.channels + c) * shape.height + row) * shape.width +
                                    column);
  }
  /// With the padding's zeros.
  double x_at(std::int64_t image, std::int64_t c, std::int64_t row, std::int64_t column) const {
    const bool inside = row >= 0 && row < shape.height && column >= 0 && column < shape.width;
    return inside ? static_cast<double>(x[x_index(image, c, row, column)]) : 0;
  }
};

std::vector<float> reordered(const std::vector<float>& values, std::int64_t channels, std::int64_t pixels,
                             bool to_pixels) {
  std::vector<float> result(values.size());
  const std::int64_t image = channels * pixels;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i) % image;
    const std::int64_t other =
        to_pixels ? at % pixels * channels + at / pixels : at % channels * pixels + at / channels;
    result[i - static_cast<std::size_t>(at) + static_cast<std::size_t>(other)] = values[i];
  }
  return result;
}

/// y in planes order.
std::vector<float> run(const runtime::winograd::Kernel& kernel, const Case& c, int threads = 1,
                       ImageOrder x_order = ImageOrder::planes, ImageOrder y_order = ImageOrder::planes) {
  const ConvolutionShape& s = c.shape;
  const WinogradConvolution convolution(kernel, s.channels, s.out_channels, c.weight, c.bias);
  const auto parallel = make_parallel(threads);
  const std::vector<float> x =
      x_order == ImageOrder::pixels ? reordered(c.x, s.channels, s.height * s.width, true) : c.x;
  const std::int64_t pixels = s.out_height() * s.out_width();
  constexpr std::size_t kGuard = 64;
  std::vector<float> y(static_cast<std::size_t>(c.batch * s.out_channels * pixels) + 2 * kGuard, -12345.0F);
  convolution.run(*parallel, s, c.batch, x.data(), x_order, y.data() + kGuard, y_order);
  for (std::size_t i = 0; i < kGuard; ++i) {
    EXPECT_EQ(y[i], -12345.0F) << "written before y";
    EXPECT_EQ(y[y.size() - 1 - i], -12345.0F) << "written behind y";
  }
  y.erase(y.begin(), y.begin() + kGuard);
  y.resize(y.size() - kGuard);
  return y_order == ImageOrder::pixels ? reordered(y, s.out_channels, pixels, false) : y;
}

struct Bounds {
  double value = 0;      // the sum, in double
  double magnitude = 0;  // the sum of its terms' magnitudes
  double error = 0;      // of the direct sum in fp32
};

Bounds direct(const Case& c, std::int64_t image, std::int64_t n, std::int64_t row, std::int64_t column) {
  Bounds sum;
  for (std::int64_t k = 0; k < c.shape.channels * kWindow * kWindow; ++k) {
    const std::int64_t channel = k / 9, i = k % 9 / 3, j = k % 3;
    const double x = c.x_at(image, channel, row + i - c.shape.padding, column + j - c.shape.padding);
    const double term = x * static_cast<double>(c.weight_at(n, channel, i, j));
    sum.value += term;
    sum.magnitude += std::fabs(term);
  }
  const double bias = c.bias.empty() ? 0 : static_cast<double>(c.bias[static_cast<std::size_t>(n)]);
  sum.value += bias;
  sum.magnitude += std::fabs(bias);
  const auto terms = static_cast<double>(c.shape.channels * kWindow * kWindow + 2);
  sum.error = terms * (1.01 * kUnit * sum.magnitude + kSmallest);
  return sum;
}

using Matrix = std::vector<std::vector<double>>;

const Matrix kB = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                   {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
const Matrix kG = {{1.0 / 4, 0, 0},
                   {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                   {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                   {1.0 / 24, 1.0 / 12, 1.0 / 6},
                   {1.0 / 24, -1.0 / 12, 1.0 / 6},
                   {0, 0, 1}};
const Matrix kA = {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};

Matrix magnitudes(Matrix m) {
  for (auto& row : m) {
    std::transform(row.begin(), row.end(), row.begin(), [](double v) { return std::fabs(v); });
  }
  return m;
}

/// t * m * t^T.
Matrix both_sides(const Matrix& t, const Matrix& m) {
  Matrix result(t.size(), std::vector<double>(t.size()));
  for (std::size_t a = 0; a < t.size(); ++a) {
    for (std::size_t b = 0; b < t.size(); ++b) {
      for (std::size_t i = 0; i < m.size(); ++i) {
        for (std::size_t j = 0; j < m.size(); ++j) {
          result[a][b] += t[a][i] * m[i][j] * t[b][j];
        }
      }
    }
  }
  return result;
}

/// How far each output of a tile may be from its exact value. Each result of an operation is off by kUnit of
/// itself at most, so the whole is off by the number of operations that follow each other times kUnit times
/// the same expression of magnitudes:
///   |A^T| (sum over c of |G g G^T| x |B^T| |d| |B|) |A|
/// Operations: 1 for the filter's rounding, 2 x 2 for the input's transform, one per channel, 2 x 3 for the
/// output's, 1 for the bias. Denormal results add kSmallest each.
Matrix tile_error(const Case& c, std::int64_t image, std::int64_t n, std::int64_t row, std::int64_t column) {
  Matrix sum(kPatch, std::vector<double>(kPatch)), denormal = sum;
  for (std::int64_t channel = 0; channel < c.shape.channels; ++channel) {
    Matrix g(kWindow, std::vector<double>(kWindow)), d(kPatch, std::vector<double>(kPatch));
    for (std::int64_t i = 0; i < kPatch * kPatch; ++i) {
      d[i / kPatch][i % kPatch] = std::fabs(
          c.x_at(image, channel, row + i / kPatch - c.shape.padding, column + i % kPatch - c.shape.padding));
    }
    for (std::int64_t i = 0; i < kWindow * kWindow; ++i) {
      g[i / kWindow][i % kWindow] = static_cast<double>(c.weight_at(n, channel, i / kWindow, i % kWindow));
    }
    const Matrix u = magnitudes(both_sides(kG, g)), v = both_sides(magnitudes(kB), d);
    for (std::size_t i = 0; i < kPatch; ++i) {
      for (std::size_t j = 0; j < kPatch; ++j) {
        sum[i][j] += u[i][j] * v[i][j];
        denormal[i][j] += v[i][j] + 20 * u[i][j] + 1;  // |B^T| rows sum to 10 at most
      }
    }
  }
  Matrix error = both_sides(magnitudes(kA), sum);
  const Matrix smallest = both_sides(magnitudes(kA), denormal);
  const double bias =
      c.bias.empty() ? 0 : std::fabs(static_cast<double>(c.bias[static_cast<std::size_t>(n)]));
  const auto operations = static_cast<double>(12 + c.shape.channels);
  for (std::size_t i = 0; i < error.size(); ++i) {
    for (std::size_t j = 0; j < error.size(); ++j) {
      error[i][j] = 1.01 * operations * kUnit * (error[i][j] + bias) + kSmallest * (smallest[i][j] + 40);
    }
  }
  return error;
}

/// One output before the pool: its exact value (NaN and infinite as sums in fp32 make it) and its bound.
struct Wanted {
  double value = 0, error = 0;
  bool any = false;  // fp32 sums overflow or not depending on their order
};

/// The outputs of one image and channel before the pool, [height][width].
std::vector<std::vector<Wanted>> wanted_plane(const Case& c, std::int64_t image, std::int64_t n) {
  const std::int64_t height = c.shape.convolved_height(), width = c.shape.convolved_width();
  std::vector<std::vector<Wanted>> plane(static_cast<std::size_t>(height),
                                         std::vector<Wanted>(static_cast<std::size_t>(width)));
  for (std::int64_t row = 0; row < height; row += kTile) {
    for (std::int64_t column = 0; column < width; column += kTile) {
      const Matrix error = tile_error(c, image, n, row, column);
      Bounds sums[kTile][kTile];
      bool directly = false;  // the kernel must have done so
      for (std::int64_t i = 0; i < kTile * kTile; ++i) {
        Bounds& sum = sums[i / kTile][i % kTile];
        sum = direct(c, image, n, row + i / kTile, column + i % kTile);
        // Its own sum of squares may be a little less.
        directly = directly || !(std::fabs(sum.value) < 0x1p21);
      }
      for (std::int64_t i = 0; i < std::min(kTile, height - row); ++i) {
        for (std::int64_t j = 0; j < std::min(kTile, width - column); ++j) {
          const Bounds& sum = sums[i][j];
          Wanted& wanted = plane[static_cast<std::size_t>(row + i)][static_cast<std::size_t>(column + j)];
          wanted.value = sum.value;
          const double own = error[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
          wanted.error = directly || !std::isfinite(own) ? sum.error : std::max(sum.error, own);
          wanted.any = std::isfinite(sum.value) && sum.magnitude > kLargest * 0.999;
        }
      }
    }
  }
  return plane;
}

double relu_of(double value) { return value < 0 ? 0 : value; }

void check(const Case& c, const std::vector<float>& y) {
  const ConvolutionShape& s = c.shape;
  ASSERT_EQ(y.size(), static_cast<std::size_t>(c.batch * s.out_channels * s.out_height() * s.out_width()));
  const std::size_t step = s.pool ? 2 : 1;
  std::size_t at = 0;
  for (std::int64_t image = 0; image < c.batch; ++image) {
    for (std::int64_t n = 0; n < s.out_channels; ++n) {
      const auto plane = wanted_plane(c, image, n);
      for (std::int64_t row = 0; row < s.out_height(); ++row) {
        for (std::int64_t column = 0; column < s.out_width(); ++column, ++at) {
          double value = -INFINITY, error = 0;
          bool any = false;
          for (std::size_t k = 0; k < step * step; ++k) {
            const Wanted& part = plane[static_cast<std::size_t>(row) * step + k / 2]
                                      [static_cast<std::size_t>(column) * step + k % 2];
            const double activated = s.relu ? relu_of(part.value) : part.value;
            value = activated > value || std::isnan(activated) ? activated : value;
            error = std::max(error, part.error);
            any = any || part.any;
          }
          const auto got = static_cast<double>(y[at]);
          const auto where = [&] {
            return ::testing::Message()
                   << "image " << image << ", output " << n << ", row " << row << ", column " << column
                   << ": " << got << ", wanted " << value << " within " << error;
          };
          if (any) {
            continue;
          }
          if (std::isnan(value)) {
            ASSERT_TRUE(std::isnan(got)) << where();
          } else if (std::isinf(value)) {
            ASSERT_EQ(got, value) << where();
          } else {
            ASSERT_LE(std::fabs(got - value), error) << where();
          }
        }
      }
    }
  }
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(a[i]), std::bit_cast<std::uint32_t>(b[i]))
        << "value " << i << ": " << a[i] << " and " << b[i];
  }
}

const ConvolutionShape kShapes[] = {
    {1, 1, 1, 1, 1},    {1, 1, 1, 1, 2},   {3, 3, 3, 5, 0},     {16, 4, 4, 16, 1},  {17, 5, 7, 33, 1},
    {4, 6, 5, 16, 2},   {5, 8, 9, 31, 0},  {32, 16, 16, 64, 1}, {31, 1, 20, 20, 1}, {48, 20, 1, 17, 2},
    {3, 32, 32, 32, 1}, {8, 13, 30, 9, 1}, {33, 10, 11, 48, 3}, {2, 7, 37, 40, 1},
};

TEST(Winograd, Shapes) {
  unsigned seed = 0;
  for (const auto* kernel : kernels()) {
    for (ConvolutionShape shape : kShapes) {
      for (const auto& [relu, pool] : {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
        if (relu != pool && shape.channels > 30) {
          continue;  // the reference takes long
        }
        shape.relu = relu;
        shape.pool = pool;
        SCOPED_TRACE(std::string(kernel->name) + ", seed " + std::to_string(++seed) + ", channels " +
                     std::to_string(shape.channels) + (relu ? ", ReLU" : "") + (pool ? ", pool" : ""));
        const Case c(shape, 2, seed, seed % 3 != 0);
        check(c, run(*kernel, c));
      }
    }
  }
}

/// The worst case is far from what comes out. On average over many outputs:
TEST(Winograd, AverageError) {
  for (const auto* kernel : kernels()) {
    SCOPED_TRACE(kernel->name);
    const Case c({64, 16, 16, 32, 1}, 1, 50);
    const std::vector<float> y = run(*kernel, c);
    double squares = 0, error = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto n = static_cast<std::int64_t>(i);
      const double value = direct(c, 0, n / 256, n % 256 / 16, n % 16).value;
      squares += value * value;
      error += (static_cast<double>(y[i]) - value) * (static_cast<double>(y[i]) - value);
    }
    EXPECT_LT(std::sqrt(error / squares), 48 * kUnit);  // 31 were measured
  }
}

TEST(Winograd, OrdersThreadsAndBatchesGiveTheSameBits) {
  for (const auto* kernel : kernels()) {
    for (ConvolutionShape shape : kShapes) {
      shape.pool = shape.height % 2 == 0;
      shape.relu = shape.pool;
      SCOPED_TRACE(std::string(kernel->name) + ", " + std::to_string(shape.channels) + " channels, " +
                   std::to_string(shape.out_channels) + " outputs");
      const Case c(shape, 5, 70);
      const std::vector<float> y = run(*kernel, c);
      for (const int threads : {2, 3, 7}) {
        expect_same_bits(run(*kernel, c, threads), y);
      }
      for (const ImageOrder x_order : {ImageOrder::planes, ImageOrder::pixels}) {
        for (const ImageOrder y_order : {ImageOrder::planes, ImageOrder::pixels}) {
          expect_same_bits(run(*kernel, c, 1, x_order, y_order), y);
        }
      }
      Case alone = c;
      alone.batch = 1;
      alone.x.assign(c.x.end() - std::ssize(c.x) / 5, c.x.end());
      expect_same_bits(run(*kernel, alone, 2), {y.end() - std::ssize(y) / 5, y.end()});
      expect_same_bits(run(*kernels().front(), c), y);  // nor does the instruction set matter
    }
  }
}

/// Every place of the patch, so that every path through the transforms is taken.
TEST(Winograd, ValuesThatAreNotFinite) {
  for (const auto* kernel : kernels()) {
    for (const auto& [relu, pool] : {std::pair{false, false}, {true, true}}) {
      for (const float value : {NAN, INFINITY, -INFINITY}) {
        const Case clean({5, 9, 9, 17, 1, relu, pool}, 1, 90);
        for (std::int64_t place = 0; place < 81; ++place) {
          SCOPED_TRACE(std::string(kernel->name) + ", " + std::to_string(value) + " at " +
                       std::to_string(place));
          Case c = clean;
          c.x[c.x_index(0, place % 5, place / 9, place % 9)] = value;
          check(c, run(*kernel, c));
        }
      }
    }
    // Several in one window, next to zero weights, everywhere, and in the bias.
    Case c({16, 10, 10, 16, 1, true, true}, 2, 91);
    std::fill_n(c.weight.begin(), 16 * 9, 0.0F);
    c.x[c.x_index(1, 3, 4, 4)] = INFINITY;
    c.x[c.x_index(1, 4, 5, 5)] = -INFINITY;
    check(c, run(*kernel, c));
    c.bias[3] = NAN;
    c.bias[4] = INFINITY;
    c.bias[5] = -INFINITY;
    check(c, run(*kernel, c));
    std::fill(c.x.begin(), c.x.end(), NAN);
    check(c, run(*kernel, c));
  }
}

/// Finite inputs that overflow in the transforms, or whose rounding errors would drown their neighbours.
TEST(Winograd, HugeValues) {
  for (const auto* kernel : kernels()) {
    for (const float value : {3.4e38F, -3.4e38F, 1e37F, 1e30F, 1e20F, 1e10F, 1e7F}) {
      SCOPED_TRACE(std::string(kernel->name) + ", " + std::to_string(value));
      Case c({18, 9, 9, 16, 1}, 1, 110);
      for (float& w : c.weight) {
        w = std::copysign(std::clamp(std::fabs(w), 0.25F, 0.99F), w);
      }
      c.x[c.x_index(0, 5, 4, 3)] = value;
      c.x[c.x_index(0, 17, 8, 8)] = value;
      check(c, run(*kernel, c));
      for (float& x : c.x) {
        x = std::clamp(x, -1.0F, 1.0F) * value * 0.001F;
      }
      check(c, run(*kernel, c));
    }
  }
}

TEST(Winograd, DenormalValues) {
  for (const auto* kernel : kernels()) {
    for (const auto& [inputs, weights] :
         {std::pair{1e-40F, 1.0F}, {1.0F, 1e-40F}, {1e-22F, 1e-20F}, {1e-38F, 1e-3F}}) {
      SCOPED_TRACE(std::string(kernel->name) + ", " + std::to_string(inputs));
      Case c({20, 8, 8, 16, 1}, 1, 130, false);
      for (float& x : c.x) {
        x *= inputs;
      }
      for (float& w : c.weight) {
        w *= weights;
      }
      check(c, run(*kernel, c));
    }
  }
}

TEST(Winograd, NothingToDo) {
  for (const auto* kernel : kernels()) {
    EXPECT_TRUE(run(*kernel, Case({16, 2, 5, 16, 0}, 3, 140)).empty());
    EXPECT_TRUE(run(*kernel, Case({16, 3, 3, 16, 0, true, true}, 3, 141)).empty());
    EXPECT_TRUE(run(*kernel, Case({16, 8, 8, 16, 1}, 0, 142)).empty());
  }
}

TEST(Winograd, WeightsThatAreNotFiniteAreNotTaken) {
  for (const auto* kernel : kernels()) {
    Case c({32, 16, 16, 32, 1}, 1, 150);
    EXPECT_TRUE(WinogradConvolution::pays(kernel, c.shape, c.weight));
    for (const float value : {NAN, INFINITY, 3.4e38F}) {
      c.weight[1234] = value;
      EXPECT_FALSE(WinogradConvolution::pays(kernel, c.shape, c.weight)) << value;
    }
  }
  EXPECT_FALSE(WinogradConvolution::pays(nullptr, {32, 16, 16, 32, 1}, {}));
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// The backend cuda on NaN, infinities, -0.0 and denormals: what each value depends on, and nothing else. The
// main function is that of cuda_model_test.cpp; its own kernels' bits are those of cuda_kernels_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

#include "cuda/special_values.h"
#include "run_seed.h"
#include "runtime/model_file.h"
#include "runtime/same_bits.h"
#include "trit/model.h"

namespace trit::test {
namespace {

Model load_on_gpu(const ModelFile& file) {
  const TemporaryPath path("cuda_special_values.safetensors");
  file.save(path.get());
  return Model::load(path.get(), {.backend = Backend::cuda});
}

/// BitLinear, ReLU and BitLinear on rows with NaN, infinities, -0.0 and denormals: the bits of the
/// definition.
TEST(CudaSpecialValues, TernaryLayersPassSpecialValues) {
  std::mt19937_64 generator(run_seed());
  int rows = 0;
  for (const auto& [in, out] : {std::pair{3, 2}, {63, 65}, {300, 7}, {1030, 130}}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      ModelFile file({in}, static_cast<unsigned>(generator()));
      const std::size_t first = file.bit_linear("a", 0, in, out, norm, true);
      file.bit_linear("b", file.relu(first), out, 5, norm, true);
      const Model gpu = load_on_gpu(file);
      for (const std::int64_t batch : {1, 3, 16, 65, 200}) {
        const std::vector<float> x = special_values(generator, static_cast<std::size_t>(batch * in),
                                                    batch % 2 == 0 ? 0.3 : 1.0 / static_cast<double>(in));
        const std::vector<float> y = gpu.run(x, batch);
        for (std::int64_t row = 0; row < batch; ++row, ++rows) {
          std::vector<float> inner =
              file.bit_linear_reference("a", {x.begin() + row * in, x.begin() + (row + 1) * in});
          for (float& v : inner) {
            v = v < 0 ? 0.0F : v;
          }
          expect_same_bits({y.begin() + row * 5, y.begin() + (row + 1) * 5},
                           file.bit_linear_reference("b", inner));
        }
      }
    }
  }
  std::printf("%d rows\n", rows);
}

/// What a value must be: the same infinity, NaN, or a number within its bound.
void expect_within(float found, const Bounded& wanted) {
  if (std::isnan(wanted.value)) {
    EXPECT_TRUE(std::isnan(found)) << found << ", wanted NaN";
  } else if (std::isinf(wanted.value)) {
    EXPECT_EQ(static_cast<double>(found), wanted.value);
  } else {
    EXPECT_NEAR(found, wanted.value, 2 * wanted.error + 1e-6);
  }
}

/// Every float operator alone and as it is fused, on images with NaN and infinities: each output is the
/// number, the infinity or the NaN of its own window, whatever algorithm multiplies.
TEST(CudaSpecialValues, FloatLayersPassNanAndInfinities) {
  std::mt19937_64 generator(run_seed());
  using Build = std::size_t (*)(ModelFile&, std::int64_t, bool);
  struct Case {
    const char* name;
    Build build;
  };
  // On images of 3 x size x size.
  const Case cases[] = {
      {"conv2d", [](ModelFile& f, std::int64_t, bool bias) { return f.conv2d("c", 0, 3, 8, 3, 1, 1, bias); }},
      {"conv2d 5x5, stride 2",
       [](ModelFile& f, std::int64_t, bool bias) { return f.conv2d("c", 0, 3, 4, 5, 2, 2, bias); }},
      {"conv2d 1x1",
       [](ModelFile& f, std::int64_t, bool bias) { return f.conv2d("c", 0, 3, 4, 1, 1, 0, bias); }},
      {"conv2d, relu",
       [](ModelFile& f, std::int64_t, bool bias) { return f.relu(f.conv2d("c", 0, 3, 8, 3, 1, 1, bias)); }},
      {"conv2d, relu, max_pool2d",
       [](ModelFile& f, std::int64_t, bool bias) {
         return f.pool("max_pool2d", f.relu(f.conv2d("c", 0, 3, 8, 3, 1, 1, bias)), 2, 2);
       }},
      {"conv2d, max_pool2d",
       [](ModelFile& f, std::int64_t, bool bias) {
         return f.pool("max_pool2d", f.conv2d("c", 0, 3, 8, 3, 1, 1, bias), 3, 2);
       }},
      {"conv2d, relu, avg_pool2d",
       [](ModelFile& f, std::int64_t, bool bias) {
         return f.pool("avg_pool2d", f.relu(f.conv2d("c", 0, 3, 8, 3, 1, 1, bias)), 2, 2);
       }},
      {"conv2d, batch_norm, relu, avg_pool2d",
       [](ModelFile& f, std::int64_t, bool bias) {
         return f.pool("avg_pool2d", f.relu(f.batch_norm("n", f.conv2d("c", 0, 3, 8, 3, 1, 1, bias), 8)), 2,
                       2);
       }},
      {"batch_norm, max_pool2d",
       [](ModelFile& f, std::int64_t, bool) { return f.pool("max_pool2d", f.batch_norm("n", 0, 3), 2, 2); }},
      {"gelu", [](ModelFile& f, std::int64_t, bool) { return f.gelu(0, "none"); }},
      {"conv2d, gelu by tanh",
       [](ModelFile& f, std::int64_t, bool bias) {
         return f.gelu(f.conv2d("c", 0, 3, 8, 3, 1, 1, bias), "tanh");
       }},
      {"relu", [](ModelFile& f, std::int64_t, bool) { return f.relu(0); }},
      {"relu, max_pool2d",
       [](ModelFile& f, std::int64_t, bool) { return f.pool("max_pool2d", f.relu(0), 2, 1); }},
      {"max_pool2d", [](ModelFile& f, std::int64_t, bool) { return f.pool("max_pool2d", 0, 2, 2); }},
      {"avg_pool2d", [](ModelFile& f, std::int64_t, bool) { return f.pool("avg_pool2d", 0, 3, 1); }},
      {"add",
       [](ModelFile& f, std::int64_t, bool bias) { return f.add(0, f.conv2d("c", 0, 3, 3, 3, 1, 1, bias)); }},
      {"linear", [](ModelFile& f, std::int64_t size,
                    bool bias) { return f.linear("l", f.flatten(0), 3 * size * size, 33, bias); }},
      {"linear, relu, linear",
       [](ModelFile& f, std::int64_t size, bool bias) {
         return f.linear("m", f.relu(f.linear("l", f.flatten(0), 3 * size * size, 33, bias)), 33, 5, bias);
       }},
  };
  int images = 0;
  for (const auto& [name, build] : cases) {
    for (const std::int64_t size : {7, 12}) {
      for (const bool bias : {false, true}) {
        SCOPED_TRACE(std::string(name) + ", size " + std::to_string(size) + (bias ? ", bias" : ""));
        ModelFile file({3, size, size}, static_cast<unsigned>(generator()));
        build(file, size, bias);
        const Model gpu = load_on_gpu(file);
        const auto image = static_cast<std::size_t>(3 * size * size);
        constexpr std::size_t kBatch = 16;
        std::vector<float> x = special_values(generator, kBatch * image, 2.0 / static_cast<double>(image));
        for (float& v : x) {
          v = std::isfinite(v) && std::fabs(v) > 4 ? 4.0F
                                                   : v;  // no overflow: which sum overflows is the order's
        }
        const std::vector<float> y = gpu.run(x, kBatch);
        for (std::size_t i = 0; i < kBatch; ++i, ++images) {
          const std::vector<Bounded> wanted =
              file.reference({x.begin() + static_cast<std::ptrdiff_t>(i * image),
                              x.begin() + static_cast<std::ptrdiff_t>((i + 1) * image)});
          for (std::size_t n = 0; n < wanted.size(); ++n) {
            expect_within(y[i * wanted.size() + n], wanted[n]);
          }
        }
        ASSERT_FALSE(HasFailure());
      }
    }
  }
  std::printf("%d images\n", images);
}

/// Denormals are numbers: cuDNN and cuBLAS may not take them for zero.
TEST(CudaSpecialValues, FloatLayersKeepDenormals) {
  for (const bool convolution : {false, true}) {
    ModelFile file({3, 8, 8}, 4200);
    if (convolution) {
      file.conv2d("c", 0, 3, 4, 3, 1, 1, false);
    } else {
      file.linear("l", file.flatten(0), 192, 5, false);
    }
    std::vector<float> x = file.random(192, -1, 1);
    for (float& v : x) {
      v *= 1e-39F;
    }
    const std::vector<float> y = load_on_gpu(file).run(x, 1);
    const std::vector<Bounded> wanted = file.reference(x);
    for (std::size_t n = 0; n < wanted.size(); ++n) {
      // Each product is rounded to a multiple of 2^-149.
      EXPECT_NEAR(y[n], wanted[n].value, 200 * std::ldexp(1.0, -149)) << (convolution ? "conv2d" : "linear");
    }
  }
}

}  // namespace
}  // namespace trit::test

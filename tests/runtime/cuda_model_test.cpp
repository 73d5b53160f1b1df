// SPDX-License-Identifier: MIT
//
// The backend cuda beside the scalar one, on a GPU: ternary layers bit for bit, float layers to rounding, odd
// shapes and batches, callers at once. Where there is no GPU the program says why and is skipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include "cuda/autotune/tuning.h"
#include "runtime/cuda/device.h"
#include "runtime/model_file.h"
#include "runtime/same_bits.h"
#include "trit/error.h"
#include "trit/model.h"

namespace trit::test {
namespace {

Model load(const ModelFile& file, Backend backend, std::int64_t images_per_launch = 0) {
  const TemporaryPath path("cuda_model.safetensors");
  file.save(path.get());
  return Model::load(path.get(), {.backend = backend, .images_per_launch = images_per_launch});
}

TEST(CudaModel, TernaryLayersHaveTheScalarBits) {
  unsigned seed = 3000;
  for (const auto& [in, out] : {std::pair{1, 1}, {4, 3}, {63, 65}, {300, 7}, {1030, 130}, {4096, 512}}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row}) {
        SCOPED_TRACE("seed " + std::to_string(++seed) + ", " + std::to_string(out) + "x" +
                     std::to_string(in));
        ModelFile file({in}, seed);
        const std::size_t first = file.bit_linear("a", 0, in, out, norm, seed % 2 == 0, scale);
        file.bit_linear("b", file.relu(first), out, 5, norm, true, scale);
        const Model scalar = load(file, Backend::scalar);
        const Model gpu = load(file, Backend::cuda);
        for (const std::size_t batch : {1, 7, 128}) {
          std::vector<float> x = file.random(batch * static_cast<std::size_t>(in), -3, 3);
          x[x.size() / 2] = std::numeric_limits<float>::quiet_NaN();
          expect_same_bits(gpu.run(x, static_cast<std::int64_t>(batch)),
                           scalar.run(x, static_cast<std::int64_t>(batch)));
        }
      }
    }
  }
}

TEST(CudaModel, GroupScalesHaveTheScalarBits) {
  unsigned seed = 3200;
  for (const auto& [in, out] : {std::pair{63, 65}, {300, 7}, {1030, 130}, {4096, 512}}) {
    for (const std::int64_t group : {64, 128, 96}) {
      for (const char* const token_scale : {"token", "group"}) {
        SCOPED_TRACE("seed " + std::to_string(++seed) + ", " + std::to_string(out) + "x" +
                     std::to_string(in) + ", " + std::to_string(group) + ", " + token_scale);
        ModelFile file({in}, seed);
        const std::size_t first =
            file.bit_linear("a", 0, in, out, Norm::rms, seed % 2 == 0, ScaleGranularity::group, group);
        const std::size_t second =
            file.bit_linear("b", file.relu(first), out, 5, Norm::none, true, ScaleGranularity::group, group);
        for (const std::size_t node : {first, second}) {
          file.graph["nodes"][node]["token_scale"] = token_scale;
        }
        const Model scalar = load(file, Backend::scalar);
        const Model gpu = load(file, Backend::cuda);
        for (const std::size_t batch : {1, 7, 40, 128}) {
          const std::vector<float> x = file.random(batch * static_cast<std::size_t>(in), -3, 3);
          expect_same_bits(gpu.run(x, static_cast<std::int64_t>(batch)),
                           scalar.run(x, static_cast<std::int64_t>(batch)));
        }
      }
    }
  }
}

TEST(CudaModel, EmbeddingsAndRotationsHaveTheScalarBits) {
  unsigned seed = 3300;
  for (const std::int64_t width : {512, 3072, 4096}) {
    for (const auto& [scale, group] : {std::pair{ScaleGranularity::tensor, std::int64_t{0}},
                                       {ScaleGranularity::row, 0},
                                       {ScaleGranularity::group, 128}}) {
      for (const int block : {0, 512, width == 512 ? 512 : 1024}) {
        SCOPED_TRACE("seed " + std::to_string(++seed) + ", " + std::to_string(width) + ", blocks of " +
                     std::to_string(block));
        ModelFile file({3}, seed);
        const std::size_t rows = file.embedding("tok", 40, width, scale, group);
        const std::size_t layer = file.bit_linear("fc", rows, width, 65, Norm::rms, true, scale, group);
        file.bit_linear("head", file.relu(layer), 65, 5, Norm::none);
        if (group != 0) {
          file.graph["nodes"][layer]["token_scale"] = seed % 2 == 0 ? "group" : "token";
        }
        if (block != 0) {
          const auto signs =
              seed % 3 == 0 ? std::vector<std::int8_t>{} : file.random_signs(static_cast<std::size_t>(width));
          file.rotate(block, signs, {"fc.weight"}, {"tok.weight"});
        }
        const Model scalar = load(file, Backend::scalar);
        const Model gpu = load(file, Backend::cuda);
        for (const std::size_t batch : {1, 7, 40}) {
          std::vector<float> x = file.random(batch * 3, 0, 40);
          std::ranges::transform(x, x.begin(), [](float index) { return std::floor(index); });
          expect_same_bits(gpu.run(x, static_cast<std::int64_t>(batch)),
                           scalar.run(x, static_cast<std::int64_t>(batch)));
        }
      }
    }
  }
}

/// Plans of TRIT_CUDA_TUNING are taken, change no bit, and are ignored where the file is damaged.
TEST(CudaModel, MeasuredPlansHaveTheScalarBits) {
  const runtime::gpu::Gpu gpu = runtime::gpu::find_gpu();
  const std::string key = cuda::tuning_key(gpu.name, gpu.device);
  const TemporaryPath path("cuda_plans");
  setenv("TRIT_CUDA_TUNING", path.get().c_str(), 1);
  ModelFile file({1030}, 3100);
  file.bit_linear("b", file.relu(file.bit_linear("a", 0, 1030, 4100, Norm::rms, true)), 4100, 5, Norm::rms);
  const Model scalar = load(file, Backend::scalar);
  for (const std::int64_t batch : {1, 5, 33, 200}) {
    const auto possible = cuda::possible_plans(gpu.device, batch, 4100, 1030);
    ASSERT_FALSE(possible.empty());
    cuda::Tuning tuning;
    tuning.set(batch, 4100, 1030, possible.back());
    ASSERT_TRUE(cuda::save_tuning(cuda::tuning_file(key), key, tuning));
    EXPECT_EQ(cuda::TunedPlans(gpu.name, gpu.device).source(), path.get().string());
    EXPECT_EQ(cuda::TunedPlans(gpu.name, gpu.device).plan(batch, 4100, 1030), possible.back());
    const std::vector<float> x = file.random(static_cast<std::size_t>(batch) * 1030, -3, 3);
    expect_same_bits(load(file, Backend::cuda).run(x, batch), scalar.run(x, batch));
  }
  std::ofstream(path.get()) << "damaged";
  testing::internal::CaptureStderr();
  const std::vector<float> x = file.random(1030, -3, 3);
  expect_same_bits(load(file, Backend::cuda).run(x, 1), scalar.run(x, 1));
  EXPECT_NE(testing::internal::GetCapturedStderr().find("is ignored"), std::string::npos);
  unsetenv("TRIT_CUDA_TUNING");
}

/// Every float operation on odd sizes, against double precision with its error bound.
TEST(CudaModel, FloatLayersAreWithinTheirErrorBound) {
  unsigned seed = 4000;
  for (const std::int64_t size : {7, 13, 32}) {
    for (const bool bias : {false, true}) {
      SCOPED_TRACE("seed " + std::to_string(++seed));
      ModelFile file({3, size, size}, seed);
      const std::size_t wide = file.relu(file.conv2d("c1", 0, 3, 5, 3, 1, 1, bias));
      const std::size_t same = file.conv2d("c2", wide, 5, 5, 3, 1, 1, bias);
      const std::size_t pooled = file.pool("max_pool2d", file.add(same, wide), 2, 2);
      const std::size_t again =
          file.pool("max_pool2d", file.relu(file.conv2d("c3", pooled, 5, 6, 1, 1, 0, bias)), 2, 1);
      const std::size_t mean = file.pool("avg_pool2d", again, 2, 1);
      const std::int64_t left = size / 2 - 2;
      const std::size_t flat = file.flatten(mean);
      file.linear("f", file.relu(file.linear("e", flat, 6 * left * left, 11, bias)), 11, 4, bias);
      const Model gpu = load(file, Backend::cuda);
      const auto image = static_cast<std::size_t>(3 * size * size);
      for (const std::size_t batch : {1, 3}) {
        const std::vector<float> x = file.random(batch * image, -2, 2);
        const std::vector<float> y = gpu.run(x, static_cast<std::int64_t>(batch));
        for (std::size_t i = 0; i < batch; ++i) {
          const std::vector<Bounded> wanted =
              file.reference({x.begin() + static_cast<std::ptrdiff_t>(i * image),
                              x.begin() + static_cast<std::ptrdiff_t>((i + 1) * image)});
          for (std::size_t n = 0; n < wanted.size(); ++n) {
            EXPECT_NEAR(y[i * wanted.size() + n], wanted[n].value, 2 * wanted[n].error + 1e-6);
          }
        }
      }
    }
  }
}

TEST(CudaModel, PiecesAndCallersChangeNothing) {
  const ModelFile file = simple_bitnet_cnn(7);
  const Model whole = load(file, Backend::cuda);
  const Model pieces = load(file, Backend::cuda, 3);
  std::vector<std::uint8_t> pixels(10 * 3072);
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>(i * 7919 >> 3);
  }
  const std::vector<float> mean{0.4F, 0.5F, 0.6F};
  const std::vector<float> deviation{0.2F, 0.25F, 0.3F};
  std::vector<float> x(pixels.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t channel = i / 1024 % 3;
    x[i] = (static_cast<float>(pixels[i]) / 255.0F - mean[channel]) / deviation[channel];
  }
  std::vector<float> from_bytes(100);
  pieces.run_images(pixels, mean, deviation, 10, from_bytes);
  expect_same_bits(from_bytes, pieces.run(x, 10));
  const std::vector<float> wanted = whole.run(x, 10);
  std::vector<std::vector<float>> found(4);
  std::vector<std::thread> callers;
  for (std::vector<float>& y : found) {
    callers.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        y = whole.run(x, 10);
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  for (const std::vector<float>& y : found) {
    expect_same_bits(y, wanted);
  }
  EXPECT_TRUE(whole.run({}, 0).empty());
}

TEST(CudaModel, WeightsStayPacked) {
  const ModelFile file = simple_bitnet_cnn(8);
  const Model model = load(file, Backend::cuda);
  std::size_t stored = 0;
  for (const LayerInfo& layer : model.layers()) {
    stored += layer.stored_bytes;
  }
  EXPECT_LE(model.memory().weight_bytes, stored + (2U << 20));
  EXPECT_FALSE(model.memory().device.empty());
}

}  // namespace
}  // namespace trit::test

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;  // SKIP_RETURN_CODE of the test
  try {
    trit::runtime::gpu::find_gpu();
  } catch (const trit::Error& error) {
    std::printf("skipped: %s\n", error.what());
    return kSkipped;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

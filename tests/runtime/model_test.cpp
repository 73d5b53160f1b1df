// SPDX-License-Identifier: MIT
//
// Whole models: ternary layers bit for bit, batches, threads, concurrent callers, and what load reports.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>

#include "child_process.h"
#include "runtime/model_file.h"
#include "runtime/same_bits.h"
#include "trit/error.h"
#include "trit/model.h"

namespace trit::test {
namespace {

Model load(const ModelFile& file, const ModelOptions& options = {}) {
  const TemporaryPath path("model.safetensors");
  file.save(path.get());
  return Model::load(path.get(), options);  // the file is gone when the model runs
}

std::vector<float> rows(const std::vector<float>& x, std::size_t begin, std::size_t end, std::size_t width) {
  return {x.begin() + static_cast<std::ptrdiff_t>(begin * width),
          x.begin() + static_cast<std::ptrdiff_t>(end * width)};
}

TEST(BitLinearNode, SameBitsAsTheDefinition) {
  unsigned seed = 1000;
  for (const auto& [in, out] : {std::pair{1, 1}, {4, 3}, {63, 65}, {300, 7}, {1030, 130}}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      for (const bool bias : {false, true}) {
        for (const auto scale : {ScaleGranularity::tensor, ScaleGranularity::row}) {
          SCOPED_TRACE("seed " + std::to_string(++seed));
          ModelFile file({in}, seed);
          file.bit_linear("fc", 0, in, out, norm, bias, scale);
          const Model model = load(file);
          constexpr std::size_t kBatch = 9;
          const auto width = static_cast<std::size_t>(in);
          std::vector<float> x = file.random(kBatch * width, -3, 3);
          x[2 * width] = std::numeric_limits<float>::quiet_NaN();  // a bad row, alone
          std::vector<float> wanted;
          for (std::size_t row = 0; row < kBatch; ++row) {
            const auto y = file.bit_linear_reference("fc", rows(x, row, row + 1, width));
            wanted.insert(wanted.end(), y.begin(), y.end());
          }
          expect_same_bits(model.run(x, kBatch), wanted);
        }
      }
    }
  }
}

/// The group scales of a node as float16: rounds them, and returns the tensor to store.
OwnedTensor float16_scales(ModelFile& file, const std::string& name) {
  std::vector<float> scales = file.floats(name);
  std::vector<std::uint16_t> half(scales.size());
  std::transform(scales.begin(), scales.end(), half.begin(), float_to_float16);
  std::transform(half.begin(), half.end(), scales.begin(), float16_to_float);
  const Shape shape = file.tensor(name).shape;
  file.set_floats(name, shape, scales);
  const auto bytes = std::as_bytes(std::span(half));
  return {name, "F16", shape, {bytes.begin(), bytes.end()}};
}

TEST(BitLinearNode, GroupScales) {
  unsigned seed = 1200;
  for (const auto& [in, out, group] :
       {std::array<std::int64_t, 3>{1, 1, 32}, {64, 3, 64}, {300, 70, 128}, {1030, 130, 96}}) {
    for (const Norm norm : {Norm::none, Norm::rms}) {
      for (const char* token_scale : {"token", "group"}) {
        for (const bool half : {false, true}) {
          SCOPED_TRACE("seed " + std::to_string(++seed));
          ModelFile file({in}, seed);
          file.bit_linear("fc", 0, in, out, norm, true, ScaleGranularity::group, group);
          file.graph["nodes"][1]["token_scale"] = token_scale;
          const OwnedTensor stored = half ? float16_scales(file, "fc.weight_scale") : OwnedTensor{};
          constexpr std::size_t kBatch = 9;
          const auto width = static_cast<std::size_t>(in);
          std::vector<float> x = file.random(kBatch * width, -3, 3);
          x[2 * width] = std::numeric_limits<float>::quiet_NaN();
          std::vector<float> wanted;
          for (std::size_t row = 0; row < kBatch; ++row) {
            const auto y = file.bit_linear_reference("fc", rows(x, row, row + 1, width));
            wanted.insert(wanted.end(), y.begin(), y.end());
          }
          if (half) {
            file.tensor("fc.weight_scale") = stored;
          }
          expect_same_bits(load(file).run(x, kBatch), wanted);
        }
      }
    }
  }
}

TEST(BitLinearNode, ChainWithReluEpsAndLeadingDimensions) {
  ModelFile file({3, 40}, 1100);
  const std::size_t first = file.bit_linear("a", 0, 40, 24, Norm::rms, true);
  file.graph["nodes"][first]["eps"] = 0.25;
  file.bit_linear("b", file.relu(first), 24, 5, Norm::none);
  const Model model = load(file);
  EXPECT_EQ(model.output_shape(), (Shape{3, 5}));
  std::vector<float> x = file.random(2 * 3 * 40, -1, 1);
  x[41] = std::numeric_limits<float>::infinity();  // row 1: NaN through the ReLU to the end
  std::vector<float> wanted;
  for (std::size_t row = 0; row < 6; ++row) {
    std::vector<float> hidden = file.bit_linear_reference("a", rows(x, row, row + 1, 40));
    std::transform(hidden.begin(), hidden.end(), hidden.begin(), [](float v) { return v < 0 ? 0.0F : v; });
    const auto y = file.bit_linear_reference("b", hidden);
    wanted.insert(wanted.end(), y.begin(), y.end());
  }
  EXPECT_TRUE(std::isnan(wanted[5]));
  expect_same_bits(model.run(x, 2), wanted);
}

/// The float half of the network alone: what the ternary half is given.
ModelFile prefix_of(const ModelFile& file, std::size_t nodes) {
  ModelFile prefix = file;
  prefix.graph["nodes"].erase(prefix.graph["nodes"].begin() + static_cast<std::ptrdiff_t>(nodes),
                              prefix.graph["nodes"].end());
  std::erase_if(prefix.tensors, [](const auto& t) { return t.name.starts_with("fc"); });
  return prefix;
}

TEST(SimpleBitNetCnn, TernaryLayersGiveTheDefinitionsBitsBehindTheFloatLayers) {
  const char* const names[] = {"", "builtin"};
  for (const char* library : names) {
    ::setenv("TRIT_DENSE", library, 1);
    ModelFile file = simple_bitnet_cnn(1200);
    const Model whole = load(file);
    const Model prefix = load(prefix_of(file, 8));
    const std::size_t batch = 5;
    const std::vector<float> x = file.random(batch * 3072, -2, 2);
    const std::vector<float> features = prefix.run(x, batch);
    ASSERT_EQ(features.size(), batch * 4096);
    std::vector<float> wanted;
    for (std::size_t image = 0; image < batch; ++image) {
      std::vector<float> hidden = file.bit_linear_reference("fc1", rows(features, image, image + 1, 4096));
      std::transform(hidden.begin(), hidden.end(), hidden.begin(), [](float v) { return v < 0 ? 0.0F : v; });
      const auto y = file.bit_linear_reference("fc2", hidden);
      wanted.insert(wanted.end(), y.begin(), y.end());
    }
    expect_same_bits(whole.run(x, batch), wanted);
  }
  ::unsetenv("TRIT_DENSE");
}

TEST(Batches, BytesGiveWhatTheirNormalisedFloatsGive) {
  ModelFile file({3, 8, 5}, 1250);
  file.flatten(0);  // the normalised bytes themselves
  const Model model = load(file);
  const std::vector<float> mean{0.25F, 0.5F, 0.125F};
  const std::vector<float> deviation{0.5F, 0.3F, 2.0F};
  for (const std::int64_t batch : {1, 7, 600}) {
    std::vector<std::uint8_t> pixels;
    std::vector<float> wanted;
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch) * 120; ++i) {
      pixels.push_back(static_cast<std::uint8_t>(i * 37 % 256));
      const std::size_t channel = i % 120 / 40;
      wanted.push_back((static_cast<float>(pixels[i]) / 255.0F - mean[channel]) / deviation[channel]);
    }
    std::vector<float> y(wanted.size());
    model.run_images(pixels, mean, deviation, batch, y);
    expect_same_bits(y, wanted);
  }
}

TEST(Batches, AnySizeGivesEachImageItsResult) {
  ModelFile file({24}, 1300);  // ternary alone: the bits may not depend on the batch
  file.bit_linear("b", file.relu(file.bit_linear("a", 0, 24, 40, Norm::rms)), 40, 6, Norm::none, true);
  const Model model = load(file);
  const std::vector<float> x = file.random(600 * 24, -1, 1);
  const std::vector<float> one_by_one = [&] {
    std::vector<float> y;
    for (std::size_t i = 0; i < 600; ++i) {
      const auto row = model.run(rows(x, i, i + 1, 24), 1);
      y.insert(y.end(), row.begin(), row.end());
    }
    return y;
  }();
  for (const std::int64_t batch : {0, 1, 7, 128, 255, 256, 257, 300, 600}) {
    SCOPED_TRACE(batch);
    expect_same_bits(model.run(rows(x, 0, static_cast<std::size_t>(batch), 24), batch),
                     rows(one_by_one, 0, static_cast<std::size_t>(batch), 6));
  }
}

TEST(Batches, ChunksOfTheCnnCoverTheBatch) {
  ModelFile file = prefix_of(simple_bitnet_cnn(1400), 8);
  const Model model = load(file);
  const std::vector<float> x = file.random(300 * 3072, -2, 2);
  const std::vector<float> all = model.run(x, 300);
  for (const std::size_t image : {std::size_t{0}, std::size_t{127}, std::size_t{299}}) {
    const std::vector<float> alone = model.run(rows(x, image, image + 1, 3072), 1);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      // Two summation orders of 288 terms of size about 1/17: far closer than this.
      ASSERT_NEAR(alone[i], all[image * alone.size() + i], 1e-4F);
    }
  }
}

TEST(Threads, TernaryBitsDoNotDependOnTheirNumber) {
  ModelFile file({700}, 1500);
  file.bit_linear("a", 0, 700, 333, Norm::rms, true, ScaleGranularity::row);
  // 200 images: enough for each of five threads to take its own through the network.
  const std::vector<float> x = file.random(200 * 700, -1, 1);
  const std::vector<float> wanted = load(file, {.threads = 1}).run(x, 200);
  for (const int threads : {2, 3, 5}) {
    const Model model = load(file, {.threads = threads});
    EXPECT_EQ(model.threads(), threads);
    for (const std::int64_t batch : {33, 97, 200}) {
      const auto images = static_cast<std::size_t>(batch);
      expect_same_bits(model.run(rows(x, 0, images, 700), batch), rows(wanted, 0, images, 333));
    }
  }
  EXPECT_THROW(load(file, {.threads = -1}), Error);
}

TEST(Threads, ModelInAChildOfFork) {
  // Ternary layers alone, for their bits, and float layers, whose library has threads of its own.
  ModelFile ternary({700}, 1700);
  ternary.bit_linear("fc", 0, 700, 333, Norm::rms, true);
  for (ModelFile& file : std::array{ternary, simple_bitnet_cnn(1701)}) {
    const Model model = load(file, {.threads = 2});
    std::size_t width = 1;
    for (const std::int64_t size : model.input().shape) {
      width *= static_cast<std::size_t>(size);
    }
    // Together through the layers, and enough images for each thread to take its own.
    for (const std::int64_t batch : {1, 7, 130}) {
      const std::vector<float> x = file.random(static_cast<std::size_t>(batch) * width, -1, 1);
      const std::vector<float> wanted = model.run(x, batch);
      const float largest =
          std::fabs(*std::ranges::max_element(wanted, {}, [](float v) { return std::fabs(v); }));
      const auto close = [&](const std::vector<float>& y) {
        return std::ranges::equal(y, wanted,
                                  [&](float a, float b) { return std::fabs(a - b) <= 0.02F * largest; });
      };
      SCOPED_TRACE("batch " + std::to_string(batch));
      EXPECT_TRUE(holds_in_child([&] {
        const std::vector<float> y = model.run(x, batch);
        return width == 700 ? y == wanted : close(y);
      }));
      EXPECT_TRUE(holds_in_child([&] { return close(load(file, {.threads = 2}).run(x, batch)); }));
      EXPECT_TRUE(holds_in_child([&] {
        bool held = false;
        std::thread([&] { held = close(model.run(x, batch)); }).join();
        return held;
      }));
      EXPECT_TRUE(close(model.run(x, batch)));  // the parent goes on
    }
  }
}

TEST(Threads, EightCallersOfOneModel) {
  ModelFile file = simple_bitnet_cnn(1600);
  const Model model = load(file);
  constexpr std::size_t kCallers = 8;
  std::vector<std::vector<float>> x, wanted, found(kCallers);
  for (std::size_t c = 0; c < kCallers; ++c) {
    x.push_back(file.random((7 * c + 1) * 3072, -2, 2));  // another batch size, so another program, for each
    wanted.push_back(load(file).run(x[c], static_cast<std::int64_t>(7 * c + 1)));
  }
  std::vector<std::thread> callers;
  std::vector<int> differences(kCallers, 0);
  for (std::size_t c = 0; c < kCallers; ++c) {
    callers.emplace_back([&, c] {
      for (int repeat = 0; repeat < 10; ++repeat) {
        const auto y = model.run(x[c], static_cast<std::int64_t>(7 * c + 1));
        differences[c] += y != wanted[c];
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(differences, std::vector<int>(kCallers, 0));
}

TEST(Run, SizesThatDoNotFit) {
  ModelFile file({4}, 1700);
  file.bit_linear("a", 0, 4, 3, Norm::none);
  const Model model = load(file);
  std::vector<float> x(8), y(6);
  model.run(x, 2, y);
  EXPECT_THROW(model.run(x, 1, y), Error);
  EXPECT_THROW(model.run(x, -1), Error);
  EXPECT_THROW(model.run(x, std::numeric_limits<std::int64_t>::max()), Error);
  EXPECT_THROW(model.run(x, 2, std::span(y).first(5)), Error);
  try {
    model.run(std::span(x).first(7), 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "Model::run: x has 7 values, wanted batch 2 (0 or more) times 4");
  }
}

TEST(Info, LayersInputAndSizes) {
  const ModelFile file = simple_bitnet_cnn();
  const Model model = load(file);
  EXPECT_EQ(model.input().shape, (Shape{3, 32, 32}));
  EXPECT_EQ(model.input().mean, (std::vector<float>{0.4914F, 0.4822F, 0.4465F}));
  EXPECT_EQ(model.output_shape(), Shape{10});
  ASSERT_EQ(model.layers().size(), 4U);
  const LayerInfo& conv = model.layers()[0];
  EXPECT_EQ(conv.name, "conv1");
  EXPECT_EQ(conv.op, "conv2d");
  EXPECT_EQ(conv.shape, (Shape{32, 3, 3, 3}));
  EXPECT_EQ(conv.stored_bytes, (32U * 27 + 32) * 4);
  EXPECT_EQ(conv.float_bytes, conv.stored_bytes);
  EXPECT_TRUE(conv.scale.empty());
  const LayerInfo& fc = model.layers()[2];
  EXPECT_EQ(fc.op, "bit_linear");
  EXPECT_EQ(fc.shape, (Shape{512, 4096}));
  EXPECT_EQ(fc.stored_bytes, 512U * 1024 + 4 + 4096 * 4);
  EXPECT_EQ(fc.float_bytes, (512U * 4096 + 4096) * 4);
  EXPECT_EQ(fc.scale, file.floats("fc1.weight_scale"));
}

TEST(HalfWeights, AreConvertedAtLoad) {
  for (const char* dtype : {"F16", "BF16"}) {
    ModelFile file({3, 6, 6}, 1800);
    file.conv2d("a", 0, 3, 4, 3, 1, 1);
    const std::vector<float> x = file.random(2 * 108, -1, 1);
    ModelFile half = file;
    for (const char* name : {"a.weight", "a.bias"}) {
      std::vector<float> values = file.floats(name);
      OwnedTensor& tensor = half.tensor(name);
      tensor.dtype = dtype;
      tensor.data.clear();
      for (float& value : values) {
        const bool f16 = tensor.dtype == "F16";
        const std::uint16_t bits = f16 ? float_to_float16(value) : float_to_bfloat16(value);
        value = f16 ? float16_to_float(bits) : bfloat16_to_float(bits);
        tensor.data.push_back(static_cast<std::byte>(bits & 0xff));
        tensor.data.push_back(static_cast<std::byte>(bits >> 8));
      }
      file.set_floats(name, tensor.shape, values);
    }
    expect_same_bits(load(half).run(x, 2), load(file).run(x, 2));
    EXPECT_EQ(load(half).layers()[0].stored_bytes * 2, load(file).layers()[0].stored_bytes);
  }
}

}  // namespace
}  // namespace trit::test

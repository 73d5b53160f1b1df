// SPDX-License-Identifier: MIT
//
// Own form -> X -> own form, for every X that is written, over 1,000 random shapes each: codes identical,
// scales identical or rounded as the format says.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::random_matrix;
using test::read_matrix;
using test::TestFolder;

constexpr int kMatricesPerFile = 50;
constexpr int kFiles = 20;

struct Target {
  std::string name;
  ConvertOptions options;
  std::int64_t rows_multiple = 1, columns_multiple = 1;
  bool row_scales = true;  // whether the format has them
  /// The scale that comes back.
  float (*rounded)(float scale) = [](float scale) { return scale; };
};

Target gguf(const std::string& block_format, std::int64_t block) {
  Target target{block_format, {}, 1, block};
  target.options.to = Format::gguf;
  target.options.block_format = block_format;
  target.rounded = [](float scale) { return float16_to_float(float_to_float16(scale)); };
  return target;
}

Target huggingface(ScaleConvention convention, std::uint64_t shard_bytes) {
  const bool divide = convention == ScaleConvention::divide;
  Target target{std::string(divide ? "hf_divide" : "hf_multiply") + (shard_bytes != 0 ? "_shards" : ""),
                {},
                4,
                1,
                false};
  target.options.to = Format::huggingface;
  target.options.scale_convention = convention;
  target.options.shard_bytes = shard_bytes;
  if (divide) {
    target.rounded = [](float scale) { return 1.0F / (1.0F / scale); };
  }
  return target;
}

std::vector<Target> targets() {
  Target own{"trit", {}};
  own.options.to = Format::trit;
  std::vector<Target> list;
  list.push_back(std::move(own));
  list.push_back(gguf("tq1_0", 256));
  list.push_back(gguf("tq2_0", 256));
  list.push_back(gguf("q2_0", 64));
  list.push_back(gguf("pq2_0", 128));
  list.push_back(gguf("ptq1_0", 128));
  list.push_back(huggingface(ScaleConvention::multiply, 0));
  list.push_back(huggingface(ScaleConvention::divide, 0));
  list.push_back(huggingface(ScaleConvention::multiply, 20'000));
  return list;
}

std::int64_t ulps_between(float a, float b) {
  return std::abs(std::int64_t{std::bit_cast<std::int32_t>(a)} -
                  std::int64_t{std::bit_cast<std::int32_t>(b)});
}

void expect_equal(const TernaryMatrix& found, const TernaryMatrix& wanted, const Target& target) {
  ASSERT_EQ(found.out_features, wanted.out_features);
  ASSERT_EQ(found.in_features, wanted.in_features);
  EXPECT_EQ(found.codes, wanted.codes);
  for (std::size_t i = 0; i < wanted.scale.size(); ++i) {
    const float scale = found.scale[found.scale.size() == 1 ? 0 : i];
    EXPECT_EQ(scale, target.rounded(wanted.scale[i])) << "row " << i;
    if (target.options.to == Format::huggingface) {
      EXPECT_LE(ulps_between(scale, wanted.scale[i]), 1);
    }
  }
}

TEST(RoundTrip, ThousandRandomShapes) {
  constexpr unsigned kSeed = 20240608;
  for (const Target& target : targets()) {
    SCOPED_TRACE(target.name + ", seed " + std::to_string(kSeed));
    std::mt19937 random(kSeed);
    const TestFolder folder;
    for (int file = 0; file < kFiles; ++file) {
      MemoryCheckpoint model;
      for (int i = 0; i < kMatricesPerFile; ++i) {
        const auto rows = static_cast<std::int64_t>(1 + random() % 40) * target.rows_multiple;
        const auto columns =
            static_cast<std::int64_t>(1 + random() % (target.columns_multiple == 1 ? 300 : 4)) *
            target.columns_multiple;
        const bool wide = target.options.to != Format::gguf;
        model.add("layer." + std::to_string(i) + ".weight",
                  random_matrix(random, rows, columns, target.row_scales && random() % 2 == 0, wide));
        const std::vector<float> bias(static_cast<std::size_t>(rows), 0.25F);
        model.add("layer." + std::to_string(i) + ".bias", {rows}, bias);
      }
      const auto number = std::to_string(file);
      ConvertOptions to_own;
      convert(model, folder / (number + ".safetensors"), to_own);
      const auto own = open_checkpoint(folder / (number + ".safetensors"));
      convert(*own, folder / (number + ".x"), target.options);
      const auto other = open_checkpoint(folder / (number + ".x"));
      EXPECT_EQ(other->format(), target.options.to);
      convert(*other, folder / (number + ".back"), to_own);
      const auto back = open_checkpoint(folder / (number + ".back"));
      ASSERT_EQ(back->tensors().size(), model.tensors().size());
      for (const TensorInfo& tensor : model.tensors()) {
        SCOPED_TRACE(tensor.name);
        if (tensor.kind == TensorKind::ternary) {
          expect_equal(read_matrix(*back, tensor.name), read_matrix(model, tensor.name), target);
        }
      }
      if (::testing::Test::HasFailure()) {
        return;
      }
      std::filesystem::remove_all(folder / (number + ".x"));
    }
  }
}

/// What is not a ternary matrix is kept too: every type, a scalar, an empty tensor, metadata.
TEST(RoundTrip, OtherTensorsAndMetadata) {
  std::mt19937 random(5);
  MemoryCheckpoint model;
  model.add("fc.weight", random_matrix(random, 8, 256, false));
  const std::vector<float> norm(256, 1.5F);
  model.add("fc.norm.weight", {256}, norm);
  model.add("conv.weight", "BF16", {2, 3, 1, 1}, std::vector<std::byte>(12, std::byte{0x3f}));
  model.add("half", "F16", {3}, std::vector<std::byte>(6, std::byte{0x3c}));
  model.add("double", "F64", {2}, std::vector<std::byte>(16, std::byte{0x40}));
  model.add("steps", "I64", {1}, std::vector<std::byte>(8, std::byte{7}));
  model.set_metadata("trit.model",
                     R"({"nodes":[{"op":"input"},{"op":"bit_linear","name":"fc","norm":"rms","eps":1e-5}]})");
  for (Target& target : targets()) {
    SCOPED_TRACE(target.name);
    const TestFolder folder;
    convert(model, folder / "x", target.options);
    const auto other = open_checkpoint(folder / "x");
    const auto differences = diff(model, *other, {.tolerance = 1e-3});
    EXPECT_TRUE(differences.empty()) << differences.front().name << ": " << differences.front().what;
    EXPECT_EQ(other->metadata().find("trit.model")->second, model.metadata().find("trit.model")->second);
    for (const TensorInfo& tensor : model.tensors()) {
      if (tensor.kind != TensorKind::ternary) {
        EXPECT_EQ(other->find(tensor.name)->type, tensor.type);
      }
    }
    // The same input gives the same bytes.
    convert(model, folder / "again", target.options);
    if (std::filesystem::is_directory(folder / "x")) {
      for (const auto& entry : std::filesystem::directory_iterator(folder / "x")) {
        EXPECT_EQ(test::read_file(entry.path()), test::read_file(folder / "again" / entry.path().filename()));
      }
    } else {
      EXPECT_EQ(test::read_file(folder / "x"), test::read_file(folder / "again"));
    }
  }
  // The stored form carries a checksum, also when it is streamed in another order than it is defined in.
  const TestFolder checked;
  convert(model, checked / "x", {});
  EXPECT_NO_THROW(verify_checksum(SafetensorsFile::open(checked / "x")));
  EXPECT_TRUE(SafetensorsFile::open(checked / "x").metadata().contains("trit.crc32c"));
  MemoryCheckpoint own_only;
  own_only.add("flags", "BOOL", {0, 4}, {});
  own_only.add("scalar", "U16", {}, std::vector<std::byte>(2));
  const TestFolder folder;
  convert(own_only, folder / "x", {});
  EXPECT_TRUE(diff(own_only, *open_checkpoint(folder / "x")).empty());
}

}  // namespace
}  // namespace trit::io

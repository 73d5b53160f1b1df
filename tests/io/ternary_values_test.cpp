// SPDX-License-Identifier: MIT
//
// Float matrices that hold ternary values: the groups are found, what is not ternary is named.
#include <gtest/gtest.h>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::random_grouped;
using test::read_matrix;
using test::TestFolder;

std::vector<float> values_of(const TernaryMatrix& matrix) {
  std::vector<float> values;
  std::vector<std::int8_t> t(static_cast<std::size_t>(matrix.in_features));
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(matrix.in_features));
  for (std::int64_t row = 0; row < matrix.out_features; ++row) {
    unpack_row(std::span(matrix.codes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes), t);
    for (std::int64_t k = 0; k < matrix.in_features; ++k) {
      const std::int64_t at = matrix.group == 0
                                  ? (matrix.scale.size() == 1 ? 0 : row)
                                  : row * groups_of(matrix.in_features, matrix.group) + k / matrix.group;
      values.push_back(static_cast<float>(t[static_cast<std::size_t>(k)]) *
                       matrix.scale[static_cast<std::size_t>(at)]);
    }
  }
  return values;
}

MemoryCheckpoint& add(MemoryCheckpoint& model, const std::string& name, const TernaryMatrix& matrix) {
  model.add(name, {matrix.out_features, matrix.in_features}, values_of(matrix));
  return model;
}

TEST(TernaryValues, TheGroupsAreFound) {
  constexpr unsigned kSeed = 20261130;
  std::mt19937 random(kSeed);
  for (int i = 0; i < 300; ++i) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", case " + std::to_string(i));
    const std::int64_t group = std::int64_t{32} << random() % 4;
    const std::int64_t columns = group + 1 + static_cast<std::int64_t>(random() % 500);
    const TernaryMatrix matrix =
        random_grouped(random, 1 + static_cast<std::int64_t>(random() % 20), columns, group);
    MemoryCheckpoint model;
    add(model, "layers.0.up_proj.weight", matrix);
    const auto found = ternary_values(model);
    ASSERT_EQ(found->tensors()[0].kind, TensorKind::ternary);
    EXPECT_EQ(found->tensors()[0].type, "float-values");
    const TernaryMatrix read = read_matrix(*found, "layers.0.up_proj.weight");
    EXPECT_EQ(read.codes, matrix.codes);
    // A larger size where neighbours happen to be equal or zeros; else this one.
    EXPECT_TRUE(read.group == group || read.group % group == 0) << read.group;
    MemoryCheckpoint wanted;
    wanted.add("layers.0.up_proj.weight", matrix);
    EXPECT_TRUE(diff(wanted, *found).empty());
    EXPECT_TRUE(diff(wanted, *ternary_values(model, group)).empty());
    EXPECT_TRUE(diff(wanted, *ternary_values(model, 32)).empty());
  }
}

TEST(TernaryValues, ScalesPerTensorAndRow) {
  std::mt19937 random(1);
  for (const bool per_row : {false, true}) {
    const TernaryMatrix matrix = test::random_matrix(random, 6, 200, per_row);
    MemoryCheckpoint model;
    add(model, "fc.weight", matrix);
    const TernaryMatrix found = read_matrix(*ternary_values(model), "fc.weight");
    EXPECT_EQ(found.group, 0);
    EXPECT_EQ(found.scale, matrix.scale);
    EXPECT_EQ(found.codes, matrix.codes);
  }
  MemoryCheckpoint zeros;
  zeros.add("fc.weight", {2, 40}, std::vector<float>(80, -0.0F));
  EXPECT_EQ(read_matrix(*ternary_values(zeros), "fc.weight").scale, std::vector<float>{1});
}

TEST(TernaryValues, WhatIsNotTernaryIsNamed) {
  std::mt19937 random(2);
  const TernaryMatrix matrix = random_grouped(random, 3, 256, 64);
  const auto refused = [&](std::size_t at, float value, std::int64_t group,
                           const std::vector<std::string>& parts) {
    std::vector<float> values = values_of(matrix);
    std::fill_n(values.begin() + 2 * 256, 256, 0.5F);
    values[at] = value;
    MemoryCheckpoint model;
    model.add("fc.weight", {3, 256}, values);
    expect_error([&] { ternary_values(model, group); }, parts);
  };
  refused(2 * 256 + 70, -0.25F, 0,
          {"tensor \"fc.weight\" is not ternary",
           "row 2, columns 64 to 95 have values of 0.5 and 0.25 (column 70)", "in a group of 32"});
  refused(2 * 256 + 70, -0.25F, 64, {"row 2, columns 64 to 127", "in a group of 64"});
  refused(0, 0, 128, {"row 0, columns 0 to 127"});
  refused(2 * 256 + 1, std::nanf(""), 0, {"row 2, column 1 is NaN"});
  refused(2 * 256 + 1, INFINITY, 0, {"row 2, column 1 is inf"});
  MemoryCheckpoint model;
  add(model, "fc.weight", matrix);
  for (const std::int64_t group : {-32, 16, 33, 100}) {
    expect_error([&] { ternary_values(model, group); },
                 {"groups of " + std::to_string(group), "multiple of 32"});
  }
  MemoryCheckpoint doubles;
  doubles.add("fc.weight", "F64", {1, 1}, std::vector<std::byte>(8));
  expect_error([&] { ternary_values(doubles); }, {"\"fc.weight\" is F64", "F32, F16 or BF16"});
}

/// Embeddings and output layers are taken if they are ternary, and stay float if they are not. Experts may lie
/// in a stack.
TEST(TernaryValues, OtherMatrices) {
  std::mt19937 random(3);
  const TestFolder folder;
  const TernaryMatrix matrix = random_grouped(random, 4, 256, 128);
  MemoryCheckpoint model;
  add(model, "model.layers.0.mlp.up_proj.weight", matrix);
  add(model, "model.embed_tokens.weight", random_grouped(random, 8, 256, 128));
  std::vector<float> floats(4 * 256);
  std::ranges::generate(floats, [&] { return static_cast<float>(random()); });
  model.add("lm_head.weight", {4, 256}, floats);
  model.add("model.norm.weight", {256}, std::vector<float>(256, 1));
  model.add("model.layers.0.mlp.experts.down_proj", {2, 2, 256}, values_of(matrix));
  model.add("conv.weight", {2, 2, 2, 2}, std::vector<float>(16, 1));
  const auto found = ternary_values(model);
  EXPECT_EQ(found->find("model.embed_tokens.weight")->kind, TensorKind::ternary);
  EXPECT_EQ(found->find("lm_head.weight")->kind, TensorKind::floating);
  EXPECT_EQ(found->find("conv.weight")->kind, TensorKind::floating);
  const TensorInfo& experts = *found->find("model.layers.0.mlp.experts.down_proj");
  EXPECT_EQ(experts.kind, TensorKind::ternary);
  EXPECT_EQ(std::vector(experts.stack.begin(), experts.stack.end()), (std::vector<std::int64_t>{2, 2, 256}));
  EXPECT_EQ(read_matrix(*found, experts.name).codes, matrix.codes);
  // To GGUF, and to floats again.
  ConvertOptions options;
  options.to = Format::gguf;
  options.block_format = "ptq1_0";
  convert(*found, folder / "gguf", options);
  EXPECT_TRUE(diff(*found, *open_checkpoint(folder / "gguf")).empty());
  options.to = Format::safetensors;
  convert(*open_checkpoint(folder / "gguf"), folder / "floats", options);
  const auto back = open_checkpoint(folder / "floats");
  EXPECT_EQ(back->find("model.embed_tokens.weight")->type, "F16");
  const auto differences = diff(model, *back);
  EXPECT_TRUE(differences.empty()) << differences[0].name << ": " << differences[0].what;
}

}  // namespace
}  // namespace trit::io

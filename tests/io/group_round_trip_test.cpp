// SPDX-License-Identifier: MIT
//
// Matrices with group scales through every format that holds them: codes and scales identical. What a format
// cannot hold, and what diff says.
#include <gtest/gtest.h>

#include <numeric>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::random_grouped;
using test::random_matrix;
using test::read_matrix;
using test::TestFolder;
using test::to_gguf;

/// The same values with a scale for each `group` inputs.
TernaryMatrix refined(const TernaryMatrix& matrix, std::int64_t group) {
  TernaryMatrix fine = matrix;
  fine.group = group;
  const std::int64_t groups = groups_of(matrix.in_features, group);
  fine.scale.clear();
  for (std::int64_t row = 0; row < matrix.out_features; ++row) {
    for (std::int64_t i = 0; i < groups; ++i) {
      fine.scale.push_back(matrix.scale[static_cast<std::size_t>(
          row * groups_of(matrix.in_features, matrix.group) + i * group / matrix.group)]);
    }
  }
  return fine;
}

void expect_matrix(const Checkpoint& checkpoint, std::string_view name, const TernaryMatrix& wanted) {
  const TernaryMatrix found = read_matrix(checkpoint, name);
  EXPECT_EQ(found.group, wanted.group);
  EXPECT_EQ(found.codes, wanted.codes);
  EXPECT_EQ(found.scale, wanted.scale);
}

TEST(GroupRoundTrip, ThousandRandomShapes) {
  constexpr unsigned kSeed = 20261129;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const TestFolder folder;
  for (int i = 0; i < 1000; ++i) {
    const std::int64_t group = std::int64_t{32} << random() % 4;  // 32 to 256
    const std::int64_t columns = group + 1 + static_cast<std::int64_t>(random() % 700);
    const auto rows = static_cast<std::int64_t>(1 + random() % 12);
    const TernaryMatrix matrix = random_grouped(random, rows, columns, group);
    MemoryCheckpoint model;
    model.add("w.weight", matrix);
    convert(model, folder / "own", {});
    const auto own = open_checkpoint(folder / "own");
    expect_matrix(*own, "w.weight", matrix);
    EXPECT_TRUE(diff(model, *own).empty());
    // Floats, and the groups found again.
    ConvertOptions to_values;
    to_values.to = Format::safetensors;
    convert(*own, folder / "values", to_values);
    const auto floats = open_checkpoint(folder / "values");
    EXPECT_EQ(floats->tensors()[0].type, "F16");
    const auto again = ternary_values(*floats, group);
    EXPECT_TRUE(diff(model, *again).empty());
    for (const auto& types : {std::pair{"q2_0", 64}, {"pq2_0", 128}, {"ptq1_0", 128}, {"tq2_0", 256}}) {
      // Copies, since clang 14 lets no lambda capture a structured binding.
      const char* const type = types.first;
      const int block = types.second;
      SCOPED_TRACE(std::string(type) + " of groups of " + std::to_string(group));
      if (columns % block != 0) {
        expect_error([&] { convert(*own, folder / "x", to_gguf(type)); }, {"takes multiples of"});
      } else if (group % block != 0) {
        expect_error(
            [&] { convert(*own, folder / "x", to_gguf(type)); },
            {"tensor \"w.weight\"", "row 0, columns 0 to " + std::to_string(block - 1), "have the scales"});
      } else {
        convert(*own, folder / "x", to_gguf(type));
        const auto other = open_checkpoint(folder / "x");
        EXPECT_TRUE(diff(model, *other).empty());
        convert(*other, folder / "back", {});
        expect_matrix(*open_checkpoint(folder / "back"), "w.weight", refined(matrix, block));
      }
    }
    if (::testing::Test::HasFailure()) {
      return;
    }
  }
}

/// Rows of the golden lengths: all conversions are possible.
TEST(GroupRoundTrip, BetweenAllBlockTypes) {
  std::mt19937 random(7);
  const TestFolder folder;
  const TernaryMatrix matrix = random_grouped(random, 9, 768, 128);
  MemoryCheckpoint model;
  model.add("w.weight", matrix);
  model.add("token_embd.weight", random_grouped(random, 40, 256, 128));
  const std::vector<const char*> types{"q2_0", "pq2_0", "ptq1_0"};
  for (const char* from : types) {
    convert(model, folder / "from", to_gguf(from));
    for (const char* to : types) {
      SCOPED_TRACE(std::string(from) + " to " + to);
      convert(*open_checkpoint(folder / "from"), folder / "to", to_gguf(to));
      const auto converted = open_checkpoint(folder / "to");
      EXPECT_TRUE(diff(model, *converted).empty());
      convert(model, folder / "direct", to_gguf(to));
      EXPECT_EQ(test::read_file(folder / "to"), test::read_file(folder / "direct"));
    }
    // The own form holds the groups of the file: 64 for Q2_0, whose halves are equal.
    convert(*open_checkpoint(folder / "from"), folder / "own", {});
    const SafetensorsFile own = SafetensorsFile::open(folder / "own");
    const std::int64_t group = std::string(from) == "q2_0" ? 64 : 128;
    EXPECT_EQ(own.metadata().at("trit.group"), std::to_string(group));
    EXPECT_EQ(own.at("w.weight_scale").dtype, "F16");
    EXPECT_EQ(own.at("w.weight_scale").shape, (std::vector<std::int64_t>{9, 768 / group}));
    EXPECT_NO_THROW(verify_checksum(own));
  }
}

TEST(GroupRoundTrip, HalvesOfABlockMustBeEqualUnlessTheyAreZeros) {
  const TestFolder folder;
  std::mt19937 random(8);
  TernaryMatrix matrix = random_grouped(random, 3, 256, 64);
  matrix.scale = {1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7};
  const auto convert_it = [&] {
    MemoryCheckpoint model;
    model.add("w.weight", matrix);
    convert(model, folder / "x", to_gguf("pq2_0"));
    return read_matrix(*open_checkpoint(folder / "x"), "w.weight").scale;
  };
  expect_error(convert_it, {"tensor \"w.weight\"", "row 2, columns 128 to 255 have the scales 6 and 7",
                            "a block of PQ2_0 has one", "gguf with q2_0"});
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
  // Columns 192 to 255 of row 2: zeros, whose scale means nothing.
  std::fill_n(matrix.codes.begin() + 2 * 64 + 48, 16, std::uint8_t{0});
  EXPECT_EQ(convert_it(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST(GroupRoundTrip, OneSizeOfGroupsInAFile) {
  const TestFolder folder;
  std::mt19937 random(9);
  MemoryCheckpoint model;
  const TernaryMatrix fine = random_grouped(random, 4, 320, 64);
  const TernaryMatrix coarse = random_grouped(random, 4, 300, 128);
  model.add("a.weight", fine);
  model.add("b.weight", coarse);
  model.add("c.weight", random_matrix(random, 4, 320, true));
  model.add("d.weight", random_matrix(random, 4, 320, false));
  convert(model, folder / "x", {});
  const auto own = open_checkpoint(folder / "x");
  EXPECT_EQ(own->metadata().at("trit.group"), "64");
  expect_matrix(*own, "a.weight", fine);
  expect_matrix(*own, "b.weight", refined(coarse, 64));
  EXPECT_EQ(own->group(*own->find("c.weight")), 0);
  EXPECT_TRUE(diff(model, *own).empty());
  EXPECT_TRUE(diff(*own, model).empty());
  // The key belongs to the form: not to other formats.
  ConvertOptions options = to_gguf("q2_0");
  options.names = NameMap::parse(R"json({"b.weight": null})json", "map");
  convert(*own, folder / "y", options);
  EXPECT_FALSE(open_checkpoint(folder / "y")->metadata().contains("trit.group"));
}

TEST(GroupRoundTrip, ScalesBeyondFloat16) {
  const TestFolder folder;
  std::mt19937 random(10);
  TernaryMatrix matrix = random_grouped(random, 2, 256, 128);
  std::vector<std::string> warnings;
  const auto written = [&](const std::vector<float>& scale) {
    matrix.scale = scale;
    MemoryCheckpoint model;
    model.add("w.weight", matrix);
    ConvertOptions options = to_gguf("ptq1_0");
    options.warn = [&](const std::string& text) { warnings.push_back(text); };
    convert(model, folder / "x", options);
    // The own form keeps float32 then.
    convert(model, folder / "own", {});
    expect_matrix(*open_checkpoint(folder / "own"), "w.weight", matrix);
    return read_matrix(*open_checkpoint(folder / "x"), "w.weight").scale;
  };
  EXPECT_EQ(written({1, 0.1F, 2, 3})[1], float16_to_float(float_to_float16(0.1F)));
  EXPECT_TRUE(warnings.empty());
  written({1, 1e-6F, 3e-7F, 3});
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("in row 0, block 1, the worst of 2 such blocks of 4"), std::string::npos)
      << warnings[0];
  for (const float scale : {1e6F, 1e-9F}) {
    expect_error([&] { written({1, 2, 3, scale}); },
                 {"tensor \"w.weight\"", "scale of row 1, block 1", "float16 rounds to", "hold it: trit"});
  }
}

TEST(GroupRoundTrip, TransformersHasNoGroups) {
  const TestFolder folder;
  std::mt19937 random(11);
  MemoryCheckpoint model;
  model.add("w.weight", random_grouped(random, 4, 256, 128));
  ConvertOptions options;
  options.to = Format::huggingface;
  expect_error(
      [&] { convert(model, folder / "x", options); },
      {"tensor \"w.weight\"", "a scale per group of 128 inputs", "trit, gguf with q2_0, gguf with pq2_0"});
}

TEST(GroupRoundTrip, WhatTheReaderOfTheOwnFormRefuses) {
  const TestFolder folder;
  const std::vector<std::uint8_t> codes(2 * 64, 0x55);
  const std::map<std::string, std::string, std::less<>> metadata{
      {"trit.version", "1"}, {"trit.layout", "rows-2bit"}, {"trit.scale", "multiply"}, {"trit.group", "128"}};
  const auto open = [&](const std::map<std::string, std::string, std::less<>>& with, const std::string& dtype,
                        std::vector<std::int64_t> shape, std::vector<float> values) {
    std::vector<std::uint16_t> halves(values.size());
    std::ranges::transform(values, halves.begin(), float_to_float16);
    const std::vector<TensorToWrite> tensors{
        {"w.weight", "U8", {2, 64}, std::as_bytes(std::span(codes))},
        {"w.weight_scale", dtype, std::move(shape),
         dtype == "F16" ? std::as_bytes(std::span(halves)) : std::as_bytes(std::span(values))}};
    save_safetensors(folder / "x.safetensors", tensors, with);
    const auto checkpoint = open_checkpoint(folder / "x.safetensors");
    return checkpoint->scale(checkpoint->tensors()[0]);
  };
  EXPECT_EQ(open(metadata, "F16", {2, 2}, {1, 2, 3, 4}), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(open(metadata, "F32", {2, 2}, {1, 2, 3, 4}), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(open(metadata, "F32", {2}, {1, 2}), (std::vector<float>{1, 2}));
  expect_error(
      [&] { open(metadata, "F16", {2, 1}, {1, 2}); },
      {"x.safetensors", "\"w.weight_scale\" is F16 [2, 1]", "F16 or F32 [2, 2]", "trit.group is 128"});
  expect_error([&] { open(metadata, "F16", {2}, {1, 2}); }, {"is F16 [2]", "wanted F32 [1] or [2]"});
  for (const float bad : {-1.0F, 0.0F, std::nanf(""), 1e9F}) {
    expect_error([&] { open(metadata, "F16", {2, 2}, {1, 2, 3, bad}); },
                 {"tensor \"w.weight\"", "row 1, group 1", "wanted finite and positive"});
  }
  auto without = metadata;
  without.erase("trit.group");
  expect_error([&] { open(without, "F16", {2, 2}, {1, 2, 3, 4}); }, {"needs metadata trit.group"});
  for (const char* group : {"", "x", "-32", "0", "48", "128 ", "2147483648"}) {
    auto wrong = metadata;
    wrong["trit.group"] = group;
    expect_error([&] { open(wrong, "F16", {2, 2}, {1, 2, 3, 4}); },
                 {"metadata trit.group is", "a multiple of 32 from 32 to 2^30"});
  }
}

TEST(GroupRoundTrip, DiffOfGroups) {
  std::mt19937 random(12);
  TernaryMatrix matrix = random_grouped(random, 3, 320, 128);
  std::ranges::fill(matrix.codes, std::uint8_t{0x55});
  MemoryCheckpoint a;
  a.add("w.weight", matrix);
  // The same scales, finer.
  MemoryCheckpoint b;
  b.add("w.weight", refined(matrix, 64));
  EXPECT_TRUE(diff(a, b).empty());
  EXPECT_TRUE(diff(b, a).empty());
  matrix.scale[5] = 2 * matrix.scale[5];
  MemoryCheckpoint c;
  c.add("w.weight", matrix);
  const auto found = diff(a, c);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_NE(found[0].what.find("in row 1, columns 256 to 319, 1 of 9 groups"), std::string::npos)
      << found[0].what;
  EXPECT_TRUE(diff(a, c, {.tolerance = 0.5}).empty());
  // Equal scales of all groups are a scale per row.
  std::iota(matrix.scale.begin(), matrix.scale.end(), 1.0F);
  for (std::size_t i = 0; i < 9; ++i) {
    matrix.scale[i] = matrix.scale[i / 3 * 3];
  }
  MemoryCheckpoint d;
  d.add("w.weight", matrix);
  matrix.group = 0;
  matrix.scale = {1, 4, 7};
  MemoryCheckpoint e;
  e.add("w.weight", matrix);
  EXPECT_TRUE(diff(d, e).empty());
  EXPECT_TRUE(diff(e, d).empty());
}

}  // namespace
}  // namespace trit::io

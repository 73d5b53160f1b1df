// SPDX-License-Identifier: MIT
//
// What the GGUF writer keeps, rounds and refuses.
#include <gtest/gtest.h>

#include "io/gguf_builder.h"
#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::GgufBuilder;
using test::plain_gguf;
using test::TestFolder;
using test::to_gguf;
using test::write_file;

TEST(Gguf, PairsOfTheSourceAreKept) {
  const TestFolder folder;
  GgufBuilder file = plain_gguf();
  file.pair("tokenizer.ggml.tokens", 9,
            GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{2}) +
                GgufBuilder::text("a") + GgufBuilder::text("b"));
  file.pair("llama.rope.freq_base", 6, GgufBuilder::number(10000.0F));
  write_file(folder / "x", file.build());
  convert(*open_checkpoint(folder / "x"), folder / "y", to_gguf());
  const auto converted = open_checkpoint(folder / "y");
  const auto original = open_checkpoint(folder / "x");
  for (const GgufPair& pair : original->gguf_pairs()) {
    const auto found = std::find_if(converted->gguf_pairs().begin(), converted->gguf_pairs().end(),
                                    [&](const GgufPair& other) { return other.key == pair.key; });
    ASSERT_NE(found, converted->gguf_pairs().end()) << pair.key;
    EXPECT_TRUE(std::equal(pair.value.begin(), pair.value.end(), found->value.begin(), found->value.end()));
  }
}

/// Scales below float16's normal range, of every ternary type.
TEST(Gguf, SmallScales) {
  const TestFolder folder;
  std::mt19937 random(20261129);
  for (const char* type : {"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"}) {
    SCOPED_TRACE(type);
    std::vector<std::string> warnings;
    ConvertOptions options = to_gguf(type);
    options.warn = [&](const std::string& text) { warnings.push_back(text); };
    const auto written = [&](const TernaryMatrix& matrix) {
      warnings.clear();
      MemoryCheckpoint model;
      model.add("w.weight", matrix);
      convert(model, folder / "x", options);
      const auto checkpoint = open_checkpoint(folder / "x");
      EXPECT_TRUE(diff(model, *checkpoint, {.tolerance = 0.001}).empty() || !warnings.empty());
      return checkpoint->scale(checkpoint->tensors()[0]);
    };
    TernaryMatrix matrix = test::random_matrix(random, 4, 256, false);
    matrix.scale = {8e-8F};
    written(matrix);
    ASSERT_EQ(warnings.size(), 1U);
    for (const char* part : {"\"w.weight\"", "8e-08", "5.96046e-08", "25.4942 % off"}) {
      EXPECT_NE(warnings[0].find(part), std::string::npos) << warnings[0];
    }
    // Exact, though below the range; and the range's least scale.
    for (const float scale : {0x1p-20F, 0x1p-14F, 65504.0F}) {
      matrix.scale = {scale};
      EXPECT_EQ(written(matrix), std::vector<float>{scale});
      EXPECT_TRUE(warnings.empty());
    }
    matrix.scale = {0.5F, 1e-6F, 3e-7F, 0.5F};
    written(matrix);
    ASSERT_EQ(warnings.size(), 1U);
    EXPECT_NE(warnings[0].find("in row 1, the worst of 2 such rows of 4"), std::string::npos) << warnings[0];
    // The scale of zeros means nothing: whatever it is, the way back is equal.
    for (const float scale : {1e-5F, 1e-12F, 1e6F}) {
      TernaryMatrix zeros{4, 256, std::vector<std::uint8_t>(4 * 64), {scale}};
      EXPECT_EQ(written(zeros), std::vector<float>{1});
      EXPECT_TRUE(warnings.empty());
      zeros.codes[64] = 1;  // row 1 is not zero
      zeros.scale = {scale, 0.5F, scale, 2};
      EXPECT_EQ(written(zeros), (std::vector<float>{1, 0.5F, 1, 2}));
      EXPECT_TRUE(warnings.empty());
    }
  }
}

TEST(Gguf, ATypeIsForTernaryMatrices) {
  const TestFolder folder;
  MemoryCheckpoint model;
  model.add("w.weight", {2, 2}, std::vector<float>(4, 1));
  ConvertOptions options = to_gguf();
  convert(model, folder / "x", options);
  for (const char* type : {"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"}) {
    options.block_format = type;
    expect_error([&] { convert(model, folder / "y", options); },
                 {"no ternary matrix to write as", "`trit pack`"});
    EXPECT_FALSE(std::filesystem::exists(folder / "y"));
  }
}

}  // namespace
}  // namespace trit::io

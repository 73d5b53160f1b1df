// SPDX-License-Identifier: MIT
//
// GGUF files with group scales that the writer would not write: two layouts under type 42, type 143 of unknown
// origin, scales that are negative, zero, NaN or infinite, codes that are no weight.
#include <gtest/gtest.h>

#include "io/gguf_builder.h"
#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::GgufBuilder;
using test::TestFolder;
using test::to_gguf;
using test::write_file;

/// Not test::expect_refused, whose folder would be this test's.
void expect_refused(const TestFolder& folder, const std::string& bytes,
                    const std::vector<std::string>& parts) {
  write_file(folder / "refused", bytes);
  expect_error([&] { open_checkpoint(folder / "refused"); }, parts);
}

std::string half(float value) { return GgufBuilder::number(float_to_float16(value)); }

/// A block of 128 (PQ2_0) or 64 weights (Q2_0) with equal codes.
std::string block_of(int weights, float scale, int code) {
  return half(scale) + std::string(static_cast<std::size_t>(weights / 4), static_cast<char>(code * 0x55));
}

/// Matrices of type 42: rows x columns each, in blocks of `weights`, the codes +1 and scales 1, 2, 3, ...
GgufBuilder type_42(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& shapes, int weights) {
  GgufBuilder file;
  file.architecture("qwen3");
  int number = 0;
  for (const auto& [rows, columns] : shapes) {
    file.tensor({"w" + std::to_string(number++) + ".weight", {columns, rows}, 42, file.data.size()});
    for (std::uint64_t i = 0; i < rows * columns / static_cast<std::uint64_t>(weights); ++i) {
      file.data += block_of(weights, static_cast<float>(i + 1), 2);
    }
    file.data.resize((file.data.size() + 31) / 32 * 32);
  }
  return file;
}

TEST(GgufGroups, LayoutsUnderType42AreToldApartByTheirSizes) {
  const TestFolder folder;
  // 8 x 256 weights: 576 or 544 bytes. 1 x 128: 64 with padding in both, which the whole file decides.
  for (const int weights : {64, 128}) {
    for (const auto& shapes : {std::vector<std::pair<std::uint64_t, std::uint64_t>>{{8, 256}},
                               {{1, 128}, {8, 256}, {1, 128}},
                               {{8, 256}, {1, 128}}}) {
      write_file(folder / "x", type_42(shapes, weights).build());
      const auto checkpoint = open_checkpoint(folder / "x");
      for (const TensorInfo& tensor : checkpoint->tensors()) {
        EXPECT_EQ(tensor.type, weights == 64 ? "Q2_0" : "PQ2_0");
      }
      const std::string name = "w" + std::to_string(shapes[0].first == 8 ? 0 : 1) + ".weight";
      const TernaryMatrix matrix = test::read_matrix(*checkpoint, name);
      EXPECT_EQ(matrix.group, weights);
      ASSERT_EQ(matrix.scale.size(), static_cast<std::size_t>(8 * 256 / weights));
      EXPECT_EQ(matrix.scale[3], 4);
      EXPECT_EQ(count_codes(*checkpoint, *checkpoint->find(name)).plus, 8 * 256);
      // Old files come out with the type that their blocks have today.
      convert(*checkpoint, folder / "y", to_gguf());
      const auto converted = open_checkpoint(folder / "y");
      EXPECT_TRUE(diff(*checkpoint, *converted).empty());
      EXPECT_EQ(converted->tensors()[0].type, weights == 64 ? "Q2_0" : "PQ2_0");
    }
  }
  // Rows that are no multiple of 128 leave one layout.
  write_file(folder / "x", type_42({{1, 64}}, 64).build());
  EXPECT_EQ(open_checkpoint(folder / "x")->tensors()[0].type, "Q2_0");
  // The last tensor need not be padded.
  GgufBuilder unpadded = type_42({{8, 256}}, 128);
  unpadded.data.resize(8 * 2 * 34);
  write_file(folder / "x", unpadded.build());
  EXPECT_EQ(open_checkpoint(folder / "x")->tensors()[0].type, "PQ2_0");
}

TEST(GgufGroups, Type42ThatFitsBothOrNeitherIsRefused) {
  const TestFolder folder;
  const std::string both = type_42({{1, 128}, {2, 128}}, 128).build();
  expect_refused(folder, both,
                 {"type 42", "both fit", "2 such tensors", "\"w0.weight\"", "--input-type q2_0 or pq2_0"});
  write_file(folder / "both", both);
  expect_error([&] { open_checkpoint(folder / "both", {.block_format = "ptq1_0"}); }, {"both fit"});
  EXPECT_EQ(open_checkpoint(folder / "both", {.block_format = "pq2_0"})->tensors()[0].type, "PQ2_0");
  EXPECT_EQ(open_checkpoint(folder / "both", {.block_format = "q2_0"})->tensors()[0].type, "Q2_0");
  // Where one fits, it is that, whatever the caller says.
  write_file(folder / "one", type_42({{8, 256}}, 128).build());
  EXPECT_EQ(open_checkpoint(folder / "one", {.block_format = "q2_0"})->tensors()[0].type, "PQ2_0");
  // One tensor fits the first layout alone, another the second.
  GgufBuilder mixed = type_42({{8, 256}}, 128);
  mixed.tensor({"w1.weight", {256, 8}, 42, mixed.data.size()});
  mixed.data += std::string(576, '\0');
  expect_refused(
      folder, mixed.build(),
      {"tensor \"w0.weight\"", "overlap", "128 in 34 bytes", "544 bytes", "neither fits the offsets of all"});
  GgufBuilder short_file = type_42({{8, 256}}, 128);
  short_file.data.resize(500);
  expect_refused(folder, short_file.build(), {"576 bytes", "end outside the file", "544 bytes", "neither"});
}

TEST(GgufGroups, Type143IsPtq1_0WhereSomethingSaysSo) {
  const TestFolder folder;
  const auto file = [] {
    GgufBuilder builder;
    builder.architecture("qwen3").tensor({"w.weight", {128, 2}, 143, 0});
    for (const float scale : {0.5F, 2.0F}) {
      builder.data += std::string(24, '\x80') + std::string(2, '\x7f') + half(scale);  // zeros
    }
    builder.data.resize(64);
    return builder;
  };
  expect_refused(folder, file().build(), {"\"w.weight\"", "type 143", "prism.*", "--input-type ptq1_0"});
  write_file(folder / "x", file().build());
  const auto said = open_checkpoint(folder / "x", {.block_format = "ptq1_0"});
  EXPECT_EQ(said->tensors()[0].type, "PTQ1_0");
  EXPECT_EQ(said->scale(said->tensors()[0]), (std::vector<float>{0.5F, 2}));
  write_file(folder / "prism", file().pair("prism.anything", 8, GgufBuilder::text("x")).build());
  EXPECT_EQ(open_checkpoint(folder / "prism")->tensors()[0].type, "PTQ1_0");
  // Another type of that number has another size.
  GgufBuilder other = file().pair("prism.anything", 8, GgufBuilder::text("x"));
  other.data.resize(128);
  expect_refused(folder, other.build(), {"\"w.weight\"", "follow"});
  // What is written here is read again without help.
  convert(*said, folder / "y", to_gguf("ptq1_0"));
  EXPECT_TRUE(diff(*said, *open_checkpoint(folder / "y")).empty());
}

/// One row of blocks of 128.
std::string row(const std::string& blocks) {
  GgufBuilder file;
  file.architecture("qwen3").tensor({"w.weight", {blocks.size() / 34 * 128, 1}, 142, 0});
  file.data = blocks;
  file.data.resize((file.data.size() + 31) / 32 * 32);
  return file.build();
}

TEST(GgufGroups, NegativeAndZeroScales) {
  const TestFolder folder;
  write_file(folder / "x", row(block_of(128, -0.5F, 2) + block_of(128, 2, 0) + block_of(128, -0.0F, 3) +
                               block_of(128, 0, 2) + block_of(128, -3, 1)));
  const auto checkpoint = open_checkpoint(folder / "x");
  const TernaryMatrix matrix = test::read_matrix(*checkpoint, "w.weight");
  EXPECT_EQ(matrix.scale, (std::vector<float>{0.5F, 2, 1, 1, 3}));
  std::vector<std::int8_t> t(640);
  unpack_row(matrix.codes, t);
  for (std::size_t i = 0; i < 640; ++i) {
    EXPECT_EQ(t[i], i < 256 ? -1 : 0) << i;
  }
  // -0.5 and 0.5 are one scale.
  write_file(folder / "x", row(block_of(128, -0.5F, 2) + block_of(128, 0.5F, 2) + block_of(128, 0, 2)));
  const TernaryMatrix per_row = test::read_matrix(*open_checkpoint(folder / "x"), "w.weight");
  EXPECT_EQ(per_row.group, 0);
  EXPECT_EQ(per_row.scale, std::vector<float>{0.5F});
  EXPECT_EQ(per_row.codes[0], 0xff);   // -1
  EXPECT_EQ(per_row.codes[32], 0x55);  // +1
  EXPECT_EQ(per_row.codes[64], 0x00);
}

TEST(GgufGroups, ScalesThatAreNotFiniteNameTheirPlace) {
  const TestFolder folder;
  for (const auto& [bits, text] :
       {std::pair{std::uint16_t{0x7c00}, "inf"}, {0xfc00, "inf"}, {0x7e00, "nan"}}) {
    std::string blocks = block_of(128, 1, 1) + block_of(128, 2, 1) + block_of(128, 3, 1);
    blocks.replace(68, 2, GgufBuilder::number(bits));
    write_file(folder / "x.gguf", row(blocks));
    const auto checkpoint = open_checkpoint(folder / "x.gguf");
    // The groups are known from the first two; the third is found when it is read.
    expect_error([&] { checkpoint->scale(checkpoint->tensors()[0]); },
                 {"x.gguf", "tensor \"w.weight\"", "row 0, block 2", text, "wanted a finite value"});
    for (const Format to : {Format::trit, Format::gguf}) {
      ConvertOptions options;
      options.to = to;
      expect_error([&] { convert(*checkpoint, folder / "y", options); }, {"row 0, block 2"});
      EXPECT_FALSE(std::filesystem::exists(folder / "y"));
    }
  }
}

TEST(GgufGroups, CodeThreeNamesRowAndColumn) {
  const TestFolder folder;
  for (const float scale : {2.0F, -2.0F}) {
    std::string blocks = block_of(128, 1, 1) + block_of(128, scale, 1);
    blocks[34 + 2 + 5] = '\x5d';  // byte 5, second field: weight 128 + 21
    write_file(folder / "x.gguf", row(blocks));
    const auto checkpoint = open_checkpoint(folder / "x.gguf");
    std::vector<std::uint8_t> codes(64);
    expect_error([&] { checkpoint->read_codes(checkpoint->tensors()[0], 0, 1, codes); },
                 {"x.gguf", "tensor \"w.weight\"", "row 0, column 149"});
  }
}

}  // namespace
}  // namespace trit::io

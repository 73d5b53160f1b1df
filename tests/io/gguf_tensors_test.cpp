// SPDX-License-Identifier: MIT
//
// GGUF tensors: types that are not decoded, stacks of matrices, scales of blocks, I2_S.
#include <gtest/gtest.h>

#include <numeric>

#include "io/gguf_builder.h"
#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::expect_refused;
using test::GgufBuilder;
using test::TestFolder;
using test::to_gguf;
using test::write_file;

/// Every type that ggml has: listed with its name and bytes, copied to GGUF, an error elsewhere.
TEST(Gguf, TypesThatAreNotDecoded) {
  const TestFolder folder;
  GgufBuilder file;
  // 512 weights of type 42 have as much room as in blocks of 128.
  file.architecture("llama").pair("trit.block_format", 8, GgufBuilder::text("q2_0"));
  std::mt19937 random(20261128);
  std::vector<std::string> names;
  for (std::uint32_t type = 0; type <= 42; ++type) {
    const std::string name = "t" + std::to_string(type);
    GgufBuilder one;
    one.architecture("llama").tensor({name, {256, 2}, type, 0});
    // The size is what the reader says: too little data give it away.
    write_file(folder / "one", one.build());
    try {
      open_checkpoint(folder / "one");
    } catch (const Error& error) {
      const std::string text = error.what();
      const std::size_t end = text.find(" bytes at offset 0 end outside");
      if (end != std::string::npos) {
        const std::size_t begin = text.rfind(' ', end - 1) + 1;
        file.tensor({name, {256, 2}, type, file.data.size()});
        for (std::size_t size = std::stoul(text.substr(begin, end - begin)); size > 0; --size) {
          file.data += static_cast<char>(random());
        }
        file.data.resize((file.data.size() + 31) / 32 * 32);
        names.push_back(name);
      }
    }
  }
  EXPECT_EQ(names.size(), 35U);  // of 43, 8 are removed
  write_file(folder / "x", file.build());
  const auto checkpoint = open_checkpoint(folder / "x");
  EXPECT_EQ(checkpoint->find("t12")->type, "Q4_K");
  EXPECT_EQ(checkpoint->find("t12")->stored_bytes, 2U * 144);
  EXPECT_EQ(checkpoint->find("t14")->type, "Q6_K");
  EXPECT_EQ(checkpoint->find("t14")->stored_bytes, 2U * 210);
  std::size_t blocks = 0;
  ConvertOptions options = to_gguf();
  options.names =
      NameMap::parse(R"json({"t3[45]": null, "t42": null})json", "map");  // random codes are no weights
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    if (tensor.kind == TensorKind::blocks) {
      ++blocks;
      ConvertOptions only;
      only.names = NameMap::parse("{\"(?!" + std::string(tensor.name) + "$).*\": null}", "map");
      for (const Format format : {Format::trit, Format::huggingface}) {
        only.to = format;
        expect_error([&] { convert(*checkpoint, folder / "no", only); },
                     {"tensor \"" + std::string(tensor.name) + "\" is " + std::string(tensor.type),
                      "not decoded", "--to gguf"});
      }
    }
  }
  EXPECT_EQ(blocks, 35U - 8 - 3);  // without those of single elements and the ternary ones
  convert(*checkpoint, folder / "y", options);
  const auto copy = open_checkpoint(folder / "y");
  EXPECT_EQ(copy->tensors().size(), 32U);
  for (const TensorInfo& tensor : copy->tensors()) {
    const TensorInfo& wanted = *checkpoint->find(tensor.name);
    EXPECT_EQ(tensor.type, wanted.type);
    ASSERT_EQ(tensor.stored_bytes, wanted.stored_bytes);
    std::vector<std::byte> a(tensor.stored_bytes);
    std::vector<std::byte> b(tensor.stored_bytes);
    copy->read_elements(tensor, 0, a);
    checkpoint->read_elements(wanted, 0, b);
    EXPECT_EQ(a, b) << tensor.name;
  }
  EXPECT_EQ(diff(*checkpoint, *copy).size(), 3U);
}

/// The experts of a layer: TQ2_0 [2, 4, 256], every expert with a scale of its own.
TEST(Gguf, StacksOfMatrices) {
  const TestFolder folder;
  GgufBuilder file;
  file.architecture("llama").tensor({"blk.0.ffn_up_exps.weight", {256, 4, 2}, 35, 0});
  for (int row = 0; row < 8; ++row) {
    file.data += std::string(64, row % 2 == 0 ? '\xaa' : '\x11') +
                 GgufBuilder::number(float_to_float16(row < 4 ? 0.5F : 2.0F));
  }
  file.data.resize((file.data.size() + 31) / 32 * 32);
  write_file(folder / "x", file.build());
  const auto checkpoint = open_checkpoint(folder / "x");
  const TensorInfo& tensor = checkpoint->tensors()[0];
  EXPECT_EQ(tensor.kind, TensorKind::ternary);
  EXPECT_EQ(std::vector<std::int64_t>(tensor.stack.begin(), tensor.stack.end()),
            (std::vector<std::int64_t>{2, 4, 256}));
  const TernaryMatrix wanted = test::read_matrix(*checkpoint, tensor.name);
  EXPECT_EQ(wanted.scale, (std::vector<float>{0.5, 0.5, 0.5, 0.5, 2, 2, 2, 2}));
  for (const char* type : {"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"}) {
    convert(*checkpoint, folder / type, to_gguf(type));
    const auto other = open_checkpoint(folder / type);
    EXPECT_TRUE(diff(*checkpoint, *other).empty()) << type;
    EXPECT_EQ(other->tensors()[0].stack.size(), 3U);
  }
  ConvertOptions refused;
  refused.to = Format::huggingface;
  expect_error([&] { convert(*checkpoint, folder / "no", refused); },
               {"\"blk.0.ffn_up_exps.weight\" is TQ2_0 [2, 4, 256], a stack of matrices"});
  // The stored form, from there and back: a scale per row, and per group where the blocks have different ones.
  for (const char* type : {"tq2_0", "q2_0"}) {
    const auto other = open_checkpoint(folder / type);
    convert(*other, folder / "trit", {});
    const auto stored = open_checkpoint(folder / "trit");
    EXPECT_TRUE(diff(*other, *stored).empty()) << type;
    EXPECT_EQ(std::vector<std::int64_t>(stored->tensors()[0].stack.begin(), stored->tensors()[0].stack.end()),
              (std::vector<std::int64_t>{2, 4, 256}));
    const SafetensorsFile written = SafetensorsFile::open(folder / "trit");
    EXPECT_EQ(written.at("blk.0.ffn_up_exps.weight").shape, (std::vector<std::int64_t>{2, 4, 64}));
    EXPECT_EQ(written.at("blk.0.ffn_up_exps.weight_scale").shape, (std::vector<std::int64_t>{2, 4}));
    ConvertOptions options;
    options.to = Format::gguf;
    options.block_format = type;
    convert(*stored, folder / "back", options);
    EXPECT_TRUE(diff(*other, *open_checkpoint(folder / "back")).empty()) << type;
  }
  MemoryCheckpoint groups;
  TernaryMatrix experts{6, 128, std::vector<std::uint8_t>(6 * 32, 0x34), std::vector<float>(12), 64};
  std::iota(experts.scale.begin(), experts.scale.end(), 1.0F);
  groups.add("x.weight", experts);
  convert(groups, folder / "groups", {});
  {
    // The same bytes as a stack of two matrices of three rows.
    const SafetensorsFile flat = SafetensorsFile::open(folder / "groups");
    Metadata metadata = flat.metadata();
    metadata.erase("trit.crc32c");
    save_safetensors(
        folder / "stack",
        std::vector<TensorToWrite>{{"x.weight", "U8", {2, 3, 32}, flat.at("x.weight").data},
                                   {"x.weight_scale", "F16", {2, 3, 2}, flat.at("x.weight_scale").data}},
        metadata);
  }
  const auto stack = open_checkpoint(folder / "stack");
  EXPECT_EQ(stack->group(stack->tensors()[0]), 64);
  EXPECT_EQ(test::read_matrix(*stack, "x.weight").scale, experts.scale);
  convert(*stack, folder / "again", {});
  EXPECT_TRUE(diff(*stack, *open_checkpoint(folder / "again")).empty());
  ConvertOptions to_blocks;
  to_blocks.to = Format::gguf;
  convert(*stack, folder / "blocks", to_blocks);
  EXPECT_TRUE(diff(*stack, *open_checkpoint(folder / "blocks")).empty());
  // The same rows as a matrix are another tensor.
  file.tensors[0].dimensions = {256, 8};
  write_file(folder / "matrix", file.build());
  const auto differences = diff(*checkpoint, *open_checkpoint(folder / "matrix"));
  ASSERT_EQ(differences.size(), 1U);
  EXPECT_EQ(differences[0].what, "shape: [2, 4, 256] and [8, 256]");
}

/// A matrix of TQ2_0 blocks, one block a row, with these d.
std::string tq2_0(const std::vector<float>& scales, std::uint8_t codes, std::uint64_t columns = 256) {
  GgufBuilder file;
  file.architecture("trit").tensor({"w.weight", {columns, scales.size() * 256 / columns}, 35, 0});
  for (const float scale : scales) {
    file.data += std::string(64, static_cast<char>(codes)) + GgufBuilder::number(float_to_float16(scale));
  }
  file.data.resize((file.data.size() + 31) / 32 * 32);
  return file.build();
}

TEST(Gguf, ScalesOfBlocks) {
  const TestFolder folder;
  const auto scale_of = [&](const std::string& bytes) {
    write_file(folder / "x", bytes);
    const auto checkpoint = open_checkpoint(folder / "x");
    return checkpoint->scale(checkpoint->tensors()[0]);
  };
  EXPECT_EQ(scale_of(tq2_0({0.5F, 0.5F}, 0xaa)), std::vector<float>{0.5F});
  EXPECT_EQ(scale_of(tq2_0({0.5F, 2, 0}, 0xaa)), (std::vector<float>{0.5F, 2, 0.5F}));
  EXPECT_EQ(scale_of(tq2_0({0, 0}, 0xaa)), std::vector<float>{1});
  EXPECT_EQ(scale_of(tq2_0({0, 4}, 0xaa, 512)), std::vector<float>{4});
  EXPECT_EQ(scale_of(tq2_0({2, 4}, 0xaa, 512)), (std::vector<float>{2, 4}));
  EXPECT_EQ(scale_of(tq2_0({-1, 1}, 0xaa, 512)), std::vector<float>{1});
  expect_error([&] { scale_of(tq2_0({1e9F}, 0xaa)); }, {"row 0, block 0", "scale inf"});

  // A block with d = 0 is zeros, whatever its codes.
  write_file(folder / "x", tq2_0({0, 4}, 0xaa, 512));
  const auto counts = [&] {
    const auto checkpoint = open_checkpoint(folder / "x");
    return count_codes(*checkpoint, checkpoint->tensors()[0]);
  }();
  EXPECT_EQ(counts.zero, 256);
  EXPECT_EQ(counts.plus, 256);
}

/// Blocks with scales of their own are groups.
TEST(Gguf, BlocksWithScalesOfTheirOwn) {
  const TestFolder folder;
  write_file(folder / "x", tq2_0({2, 4, -1, 0}, 0x99, 512));  // codes +1 and 0, in turn
  const auto checkpoint = open_checkpoint(folder / "x");
  const TernaryMatrix matrix = test::read_matrix(*checkpoint, "w.weight");
  EXPECT_EQ(matrix.group, 256);
  EXPECT_EQ(matrix.scale, (std::vector<float>{2, 4, 1, 1}));
  const CodeCounts counts = count_codes(*checkpoint, checkpoint->tensors()[0]);
  EXPECT_EQ(counts.plus, 256);
  EXPECT_EQ(counts.minus, 128);  // those of the negative scale
  for (const char* type : {"tq1_0", "tq2_0", "q2_0", "pq2_0", "ptq1_0"}) {
    convert(*checkpoint, folder / type, to_gguf(type));
    EXPECT_TRUE(diff(*checkpoint, *open_checkpoint(folder / type)).empty()) << type;
  }
}

TEST(Gguf, InvalidCodesNameRowAndColumn) {
  const TestFolder folder;
  std::string bytes = tq2_0({1, 1, 1}, 0x55);
  // Row 2, byte 33 of qs, second field: weight 128 + 32 + 1.
  bytes[bytes.size() - 3 * 66 - (224 - 3 * 66) + 2 * 66 + 33] = 0x5d;
  write_file(folder / "x", bytes);
  const auto checkpoint = open_checkpoint(folder / "x");
  std::vector<std::uint8_t> codes(3 * 64);
  expect_error([&] { checkpoint->read_codes(checkpoint->tensors()[0], 0, 3, codes); },
               {"tensor \"w.weight\"", "row 2, column 161"});
}

/// llama.cpp's BitNet models: d = 1, the scale in a tensor of its own.
TEST(Gguf, ScaleTensorBesideTheMatrix) {
  const TestFolder folder;
  for (const std::vector<std::uint64_t>& shape : {std::vector<std::uint64_t>{1}, {}}) {
    GgufBuilder file;
    file.architecture("bitnet").tensor({"w.weight", {256}, 35, 0}).tensor({"w.scale", shape, 0, 96});
    file.data = std::string(64, '\x55') + GgufBuilder::number(float_to_float16(1)) + std::string(30, '\0') +
                GgufBuilder::number(0.0371F);
    file.data.resize(128);
    write_file(folder / "x", file.build());
    const auto checkpoint = open_checkpoint(folder / "x");
    ASSERT_EQ(checkpoint->tensors().size(), 1U);
    EXPECT_EQ(checkpoint->tensors()[0].shape[0], 1);
    EXPECT_EQ(checkpoint->scale(checkpoint->tensors()[0]), std::vector<float>{0.0371F});
  }
}

TEST(Gguf, I2_s) {
  const TestFolder folder;
  GgufBuilder file;
  file.architecture("bitnet-b1.58").tensor({"w.weight", {192, 2}, 36, 0});
  file.data = std::string(96, '\x55') + GgufBuilder::number(0.25F) + std::string(28, '\x7f');
  file.data[32 + 5] = '\x95';  // block 1, weight 5: +1. Of the matrix: weight 133
  file.data[64 + 7] = '\x54';  // block 2, weight 96 + 7: -1. Weight 359
  write_file(folder / "x", file.build());
  const auto checkpoint = open_checkpoint(folder / "x");
  const TernaryMatrix matrix = test::read_matrix(*checkpoint, "w.weight");
  EXPECT_EQ(matrix.scale, std::vector<float>{0.25F});
  std::vector<std::int8_t> t(192);
  for (std::size_t row = 0; row < 2; ++row) {
    unpack_row(std::span(matrix.codes).subspan(48 * row, 48), t);
    for (std::size_t column = 0; column < 192; ++column) {
      const std::size_t at = 192 * row + column;
      EXPECT_EQ(t[column], at == 133 ? 1 : at == 359 ? -1 : 0) << at;
    }
  }
  file.data[0] = '\xff';
  write_file(folder / "x", file.build());
  const auto broken = open_checkpoint(folder / "x");
  std::vector<std::uint8_t> codes(96);
  expect_error([&] { broken->read_codes(broken->tensors()[0], 0, 2, codes); },
               {"row 0, column 0", "I2_S in the order of bitnet.cpp's x86 build"});
  // The order of another build: its size differs.
  file.data.resize(96);
  expect_refused(file.build(), {"tensor \"w.weight\"", "n / 4 bytes of codes, 32 of scale"});
  file.tensors[0].dimensions = {100, 1};
  expect_refused(file.build(), {"I2_S with 100 weights", "a multiple of 128"});
}

}  // namespace
}  // namespace trit::io

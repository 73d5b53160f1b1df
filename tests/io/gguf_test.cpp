// SPDX-License-Identifier: MIT
//
// GGUF: what is refused and how it is said; scales per block; I2_S.
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
using test::write_file;

void expect_refused(const std::string& bytes, const std::vector<std::string>& parts) {
  const TestFolder folder;
  write_file(folder / "x.gguf", bytes);
  expect_error([&] { open_checkpoint(folder / "x.gguf"); }, parts);
}

/// A file with one F32 tensor of four elements.
GgufBuilder plain() {
  GgufBuilder file;
  file.architecture("trit").tensor({"a", {4}, 0, 0});
  file.data = std::string(32, '\0');
  return file;
}

TEST(Gguf, ReadsThePlainFile) {
  const TestFolder folder;
  write_file(folder / "x", plain().build());
  const auto checkpoint = open_checkpoint(folder / "x");
  EXPECT_EQ(checkpoint->format(), Format::gguf);
  ASSERT_EQ(checkpoint->tensors().size(), 1U);
  EXPECT_EQ(checkpoint->tensors()[0].type, "F32");
  EXPECT_NE(checkpoint->description().find("\"trit\""), std::string::npos);
}

TEST(Gguf, VersionsAndByteOrder) {
  GgufBuilder file = plain();
  for (const std::uint32_t version : {1U, 2U}) {
    file.version = version;
    expect_refused(file.build(), {"GGUF version " + std::to_string(version), "wanted version 3"});
  }
  file.version = 4;
  expect_refused(file.build(), {"GGUF version 4", "wanted version 3"});
  file.version = 0x03000000;
  expect_refused(file.build(), {"big-endian", "wanted a little-endian"});
  file.magic = "FUGG";
  expect_refused(file.build(), {"byte-swapped", "wanted GGUF version 3"});
  file.magic = "lmgg";
  expect_refused(file.build(), {"ggml from before GGUF", "wanted GGUF version 3"});
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string bytes = plain().build();
  const TestFolder folder;
  for (std::size_t size = 4; size < bytes.size() - 16; ++size) {
    write_file(folder / "x", bytes.substr(0, size));
    EXPECT_THROW(open_checkpoint(folder / "x"), Error) << size;
  }
}

TEST(Gguf, CountsBeyondTheFile) {
  GgufBuilder file = plain();
  file.extra_tensors = std::uint64_t{1} << 60;
  expect_refused(file.build(), {"1152921504606846977 tensors", "hold at most"});
  file = plain();
  file.pair_count = std::uint64_t{1} << 61;
  expect_refused(file.build(), {"2305843009213693952 pairs", "hold at most"});
  file = plain();
  file.pair("list", 9, GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{1} << 62));
  expect_refused(file.build(), {"key \"list\"", "an array of 4611686018427387904 strings"});
  file = plain();
  file.pair("list", 9, GgufBuilder::number(std::uint32_t{10}) + GgufBuilder::number(std::uint64_t{1} << 61));
  expect_refused(file.build(), {"key \"list\"", "values of 8 bytes"});
  file = plain();
  file.pair("text", 8, GgufBuilder::number(std::uint64_t{1} << 63));
  expect_refused(file.build(), {"9223372036854775808 bytes"});
}

TEST(Gguf, Pairs) {
  GgufBuilder file = plain();
  file.pair("x", 13, "");
  expect_refused(file.build(), {"key \"x\"", "value type 13", "wanted 0..12"});
  file = plain();
  file.pair("x", 9, GgufBuilder::number(std::uint32_t{9}) + GgufBuilder::number(std::uint64_t{0}));
  expect_refused(file.build(), {"an array of type 9"});
  file = plain();
  file.pair("general.architecture", 4, GgufBuilder::number(std::uint32_t{1}));
  expect_refused(file.build(), {"\"general.architecture\" occurs twice"});
  for (const std::uint32_t alignment : {0U, 4U, 48U, 1U << 20}) {
    file = plain();
    file.pair("general.alignment", 4, GgufBuilder::number(alignment));
    expect_refused(file.build(), {"general.alignment is " + std::to_string(alignment), "power of two"});
  }
}

TEST(Gguf, Tensors) {
  const auto with = [](const GgufBuilder::Tensor& tensor) {
    GgufBuilder file;
    file.architecture("trit").tensor(tensor);
    file.data = std::string(1024, '\0');
    return file.build();
  };
  expect_refused(with({"a", {4}, 2, 0}), {"tensor \"a\"", "Q4_0 (2)", "wanted F32", "TQ1_0, TQ2_0, Q2_0"});
  expect_refused(with({"a", {4}, 77, 0}), {"unknown type 77"});
  expect_refused(with({"a", {}, 0, 0}), {"0 dimensions", "wanted 1 to 4"});
  expect_refused(with({"a", {1, 1, 1, 1, 1}, 0, 0}), {"5 dimensions"});
  expect_refused(with({"a", {4, 0}, 0, 0}), {"a dimension of 0"});
  expect_refused(with({"a", {1ULL << 40, 1ULL << 40}, 0, 0}), {"wanted fewer than 2^60 elements"});
  expect_refused(with({"a", {4}, 0, 8}), {"offset 8", "a multiple of 32"});
  expect_refused(with({std::string("a\0b", 3), {4}, 0, 0}), {"a NUL at byte 1"});
  expect_refused(with({"../a", {4}, 0, 0}), {"the part \"..\""});
  expect_refused(with({"x/../a", {4}, 0, 0}), {"the part \"..\""});
  expect_refused(with({"", {4}, 0, 0}), {"is empty"});
  expect_refused(with({"\xff", {4}, 0, 0}), {"not valid UTF-8"});
  expect_refused(with({std::string(65, 'n'), {4}, 0, 0}), {"has 65 bytes, wanted at most 64"});
  expect_refused(with({"a", {100, 2}, 35, 0}), {"TQ2_0 (35) with rows of 100", "a multiple of 256"});
  expect_refused(with({"a", {256, 2, 2}, 35, 0}), {"3 dimensions, wanted a matrix"});
  expect_refused(with({"a", {128, 2}, 36, 0}), {"type 36 with general.architecture \"trit\"", "bitnet"});
}

TEST(Gguf, Ranges) {
  const auto two = [](std::uint64_t first, std::uint64_t second, std::size_t data) {
    GgufBuilder file;
    file.architecture("trit").tensor({"a", {16}, 0, first}).tensor({"b", {8}, 0, second});
    file.data = std::string(data, '\0');
    return file.build();
  };
  const TestFolder folder;
  write_file(folder / "x", two(0, 64, 96));
  EXPECT_NO_THROW(open_checkpoint(folder / "x"));
  expect_refused(two(0, 32, 96), {"tensor \"a\"", "overlap tensor \"b\""});
  expect_refused(two(0, 0, 96), {"overlap"});
  expect_refused(two(0, 96, 128), {"tensor \"a\"", "leave a hole before tensor \"b\""});
  expect_refused(two(32, 96, 128), {"begin at offset 32, wanted 0"});
  expect_refused(two(0, 64, 64), {"tensor \"b\"", "end outside the file"});
  expect_refused(two(0, 64, 256), {"160 bytes follow"});
  GgufBuilder file;
  file.architecture("trit").tensor({"a", {4}, 0, 0}).tensor({"a", {4}, 0, 32});
  file.data = std::string(64, '\0');
  expect_refused(file.build(), {"\"a\" occurs twice"});
}

TEST(Gguf, OlderQ2_0IsKnownByItsSize) {
  GgufBuilder file;
  file.architecture("trit").tensor({"a", {128, 4}, 42, 0});
  file.data = std::string(4 * 34, '\0');
  expect_refused(file.build(), {"older Q2_0 with blocks of 128"});
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
  expect_error([&] { scale_of(tq2_0({2, 4}, 0xaa, 512)); },
               {"row 0, block 1", "wanted one scale for all blocks"});
  expect_error([&] { scale_of(tq2_0({-1}, 0xaa)); }, {"scale -1", "not negative"});
  expect_error([&] { scale_of(tq2_0({1e9F}, 0xaa)); }, {"scale inf"});

  // A block with d = 0 is zeros, whatever its codes.
  write_file(folder / "x", tq2_0({0, 4}, 0xaa, 512));
  const auto counts = [&] {
    const auto checkpoint = open_checkpoint(folder / "x");
    return count_codes(*checkpoint, checkpoint->tensors()[0]);
  }();
  EXPECT_EQ(counts.zero, 256);
  EXPECT_EQ(counts.plus, 256);
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
  GgufBuilder file;
  file.architecture("bitnet").tensor({"w.weight", {256}, 35, 0}).tensor({"w.scale", {1}, 0, 96});
  file.data = std::string(64, '\x55') + GgufBuilder::number(float_to_float16(1)) + std::string(30, '\0') +
              GgufBuilder::number(0.0371F);
  file.data.resize(128);
  write_file(folder / "x", file.build());
  const auto checkpoint = open_checkpoint(folder / "x");
  ASSERT_EQ(checkpoint->tensors().size(), 1U);
  EXPECT_EQ(checkpoint->tensors()[0].shape[0], 1);
  EXPECT_EQ(checkpoint->scale(checkpoint->tensors()[0]), std::vector<float>{0.0371F});
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

TEST(Gguf, PairsOfTheSourceAreKept) {
  const TestFolder folder;
  GgufBuilder file = plain();
  file.pair("tokenizer.ggml.tokens", 9,
            GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{2}) +
                GgufBuilder::text("a") + GgufBuilder::text("b"));
  file.pair("llama.rope.freq_base", 6, GgufBuilder::number(10000.0F));
  write_file(folder / "x", file.build());
  ConvertOptions options;
  options.to = Format::gguf;
  convert(*open_checkpoint(folder / "x"), folder / "y", options);
  const auto converted = open_checkpoint(folder / "y");
  const auto original = open_checkpoint(folder / "x");
  for (const GgufPair& pair : original->gguf_pairs()) {
    const auto found = std::find_if(converted->gguf_pairs().begin(), converted->gguf_pairs().end(),
                                    [&](const GgufPair& other) { return other.key == pair.key; });
    ASSERT_NE(found, converted->gguf_pairs().end()) << pair.key;
    EXPECT_TRUE(std::equal(pair.value.begin(), pair.value.end(), found->value.begin(), found->value.end()));
  }
}

}  // namespace
}  // namespace trit::io

// SPDX-License-Identifier: MIT
//
// GGUF headers: what is refused, and the error messages.
#include <gtest/gtest.h>

#include "io/gguf_builder.h"
#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"

namespace trit::io {
namespace {

using test::expect_refused;
using test::GgufBuilder;
using test::plain_gguf;
using test::TestFolder;
using test::write_file;

TEST(Gguf, ReadsThePlainFile) {
  const TestFolder folder;
  write_file(folder / "x", plain_gguf().build());
  const auto checkpoint = open_checkpoint(folder / "x");
  EXPECT_EQ(checkpoint->format(), Format::gguf);
  ASSERT_EQ(checkpoint->tensors().size(), 1U);
  EXPECT_EQ(checkpoint->tensors()[0].type, "F32");
  EXPECT_NE(checkpoint->description().find("\"trit\""), std::string::npos);
}

TEST(Gguf, VersionsAndByteOrder) {
  GgufBuilder file = plain_gguf();
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
  expect_refused(file.build(), {"ggml model file older than GGUF", "wanted GGUF version 3"});
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string bytes = plain_gguf().build();
  const TestFolder folder;
  for (std::size_t size = 4; size < bytes.size() - 16; ++size) {
    write_file(folder / "x", bytes.substr(0, size));
    EXPECT_THROW(open_checkpoint(folder / "x"), Error) << size;
  }
}

TEST(Gguf, CountsBeyondTheFile) {
  GgufBuilder file = plain_gguf();
  file.extra_tensors = std::uint64_t{1} << 60;
  expect_refused(file.build(), {"1152921504606846977 tensors", "hold at most"});
  file = plain_gguf();
  file.pair_count = std::uint64_t{1} << 61;
  expect_refused(file.build(), {"2305843009213693952 pairs", "hold at most"});
  file = plain_gguf();
  file.pair("list", 9, GgufBuilder::number(std::uint32_t{8}) + GgufBuilder::number(std::uint64_t{1} << 62));
  expect_refused(file.build(), {"key \"list\"", "an array of 4611686018427387904 strings"});
  file = plain_gguf();
  file.pair("list", 9, GgufBuilder::number(std::uint32_t{10}) + GgufBuilder::number(std::uint64_t{1} << 61));
  expect_refused(file.build(), {"key \"list\"", "values of 8 bytes"});
  file = plain_gguf();
  file.pair("text", 8, GgufBuilder::number(std::uint64_t{1} << 63));
  expect_refused(file.build(), {"9223372036854775808 bytes"});
}

TEST(Gguf, Pairs) {
  GgufBuilder file = plain_gguf();
  file.pair("x", 13, "");
  expect_refused(file.build(), {"key \"x\"", "value type 13", "wanted 0..12"});
  file = plain_gguf();
  file.pair("x", 9, GgufBuilder::number(std::uint32_t{9}) + GgufBuilder::number(std::uint64_t{0}));
  expect_refused(file.build(), {"an array of type 9"});
  file = plain_gguf();
  file.pair("general.architecture", 4, GgufBuilder::number(std::uint32_t{1}));
  expect_refused(file.build(), {"\"general.architecture\" occurs twice"});
  for (const std::uint32_t alignment : {0U, 4U, 48U, 1U << 20}) {
    file = plain_gguf();
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
  expect_refused(with({"a", {4}, 2, 0}), {"tensor \"a\"", "Q4_0 (2) with rows of 4", "a multiple of 32"});
  expect_refused(with({"a", {}, 2, 0}), {"Q4_0 (2) with rows of 1", "a multiple of 32"});
  expect_refused(with({"a", {4}, 77, 0}),
                 {"unknown type 77", "ggml's types: 0 to 42, PQ2_0 (142), PTQ1_0 (143)"});
  for (const auto& [type, name] :
       std::vector<std::pair<std::uint32_t, std::string>>{{4, "Q4_2 (4)"},
                                                          {5, "Q4_3 (5)"},
                                                          {31, "Q4_0_4_4 (31)"},
                                                          {32, "Q4_0_4_8 (32)"},
                                                          {33, "Q4_0_8_8 (33)"},
                                                          {37, "IQ4_NL_4_8 (37)"},
                                                          {38, "IQ4_NL_8_8 (38)"}}) {
    expect_refused(with({"a", {256}, type, 0}), {"tensor \"a\": " + name, "ggml has removed"});
  }
  expect_refused(with({"a", {1, 1, 1, 1, 1}, 0, 0}), {"5 dimensions", "wanted at most 4"});
  expect_refused(with({"a", {4, 1ULL << 63}, 0, 0}), {"a dimension of 9223372036854775808"});
  expect_refused(with({"a", {1ULL << 40, 1ULL << 40}, 0, 0}), {"wanted fewer than 2^60 elements"});
  expect_refused(with({"a", {4}, 0, 8}), {"offset 8", "a multiple of 32"});
  expect_refused(with({std::string("a\0b", 3), {4}, 0, 0}), {"a NUL at byte 1"});
  expect_refused(with({"../a", {4}, 0, 0}), {"the part \"..\""});
  expect_refused(with({"x/../a", {4}, 0, 0}), {"the part \"..\""});
  expect_refused(with({"", {4}, 0, 0}), {"is empty"});
  expect_refused(with({"\xff", {4}, 0, 0}), {"not valid UTF-8"});
  expect_refused(with({std::string(65, 'n'), {4}, 0, 0}), {"has 65 bytes, wanted at most 64"});
  expect_refused(with({"a", {100, 2}, 35, 0}), {"TQ2_0 (35) with rows of 100", "a multiple of 256"});
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
  // The last tensor is empty: the one before it must end inside the file all the same.
  GgufBuilder short_file;
  short_file.architecture("trit").tensor({"a", {16}, 0, 0}).tensor({"b", {0}, 0, 64});
  short_file.data = std::string(32, '\0');
  expect_refused(short_file.build(), {"tensor \"a\"", "end outside the file, which has 32 bytes"});
  GgufBuilder file;
  file.architecture("trit").tensor({"a", {4}, 0, 0}).tensor({"a", {4}, 0, 32});
  file.data = std::string(64, '\0');
  expect_refused(file.build(), {"\"a\" occurs twice"});
}

/// A caller may multiply the sizes in any order.
TEST(Gguf, EmptyTensorsWhoseOtherSizesOverflow) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;
  for (const std::vector<std::uint64_t>& sizes :
       {std::vector<std::uint64_t>{0, kHuge, 4}, {kHuge, 0, 4}, {kHuge, 4, 0}}) {
    GgufBuilder file;
    const std::string bytes = file.architecture("trit").tensor({"empty", sizes, 0, 0}).build();
    expect_refused(bytes, {"\"empty\"", "4611686018427387904", "wanted fewer than 2^60 elements"});
  }
}

/// As ggml's reader takes them.
TEST(Gguf, ScalarsAndEmptyTensors) {
  const TestFolder folder;
  GgufBuilder file;
  file.architecture("trit")
      .tensor({"empty", {4, 0}, 0, 0})
      .tensor({"empty_blocks", {256, 0}, 35, 0})
      .tensor({"no_rows", {0}, 12, 0})
      .tensor({"scalar", {}, 0, 0})
      .tensor({"some", {2}, 0, 32})
      .tensor({"z", {0, 3, 0}, 30, 64});
  file.data = GgufBuilder::number(0.25F) + std::string(28, '\0') + GgufBuilder::number(1.0F) +
              GgufBuilder::number(2.0F);  // without the padding of the last
  write_file(folder / "x", file.build());
  const auto check = [](const Checkpoint& checkpoint) {
    ASSERT_EQ(checkpoint.tensors().size(), 6U);
    EXPECT_TRUE(checkpoint.find("scalar")->shape.empty());
    std::vector<float> value(1);
    checkpoint.read_floats(*checkpoint.find("scalar"), 0, value);
    EXPECT_EQ(value[0], 0.25F);
    const auto shape_of = [&](std::string_view name) {
      const auto shape = checkpoint.find(name)->shape;
      return std::vector<std::int64_t>(shape.begin(), shape.end());
    };
    EXPECT_EQ(shape_of("empty"), (std::vector<std::int64_t>{0, 4}));
    EXPECT_EQ(shape_of("empty_blocks"), (std::vector<std::int64_t>{0, 256}));
    EXPECT_EQ(shape_of("z"), (std::vector<std::int64_t>{0, 3, 0}));
    EXPECT_EQ(checkpoint.find("no_rows")->type, "Q4_K");
    EXPECT_EQ(checkpoint.find("empty")->stored_bytes, 0U);
    for (const TensorInfo& tensor : checkpoint.tensors()) {
      checkpoint.release(tensor);
    }
  };
  const auto original = open_checkpoint(folder / "x");
  check(*original);
  ConvertOptions options;
  options.to = Format::gguf;
  convert(*original, folder / "y", options);
  const auto copy = open_checkpoint(folder / "y");
  check(*copy);
  EXPECT_TRUE(diff(*original, *copy).empty());
}

}  // namespace
}  // namespace trit::io

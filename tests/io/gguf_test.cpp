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
  expect_refused(with({"a", {4}, 2, 0}), {"tensor \"a\"", "Q4_0 (2) with rows of 4", "a multiple of 32"});
  expect_refused(with({"a", {}, 2, 0}), {"Q4_0 (2) with rows of 1", "a multiple of 32"});
  expect_refused(with({"a", {4}, 77, 0}), {"unknown type 77", "ggml's types, 0 to 42"});
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

/// Every type that ggml has: listed with its name and bytes, copied to GGUF, an error elsewhere.
TEST(Gguf, TypesThatAreNotDecoded) {
  const TestFolder folder;
  GgufBuilder file;
  file.architecture("llama");
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
  ConvertOptions to_gguf;
  to_gguf.to = Format::gguf;
  to_gguf.names =
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
  convert(*checkpoint, folder / "y", to_gguf);
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
  for (const char* type : {"tq1_0", "tq2_0", "q2_0"}) {
    ConvertOptions options;
    options.to = Format::gguf;
    options.block_format = type;
    convert(*checkpoint, folder / type, options);
    const auto other = open_checkpoint(folder / type);
    EXPECT_TRUE(diff(*checkpoint, *other).empty()) << type;
    EXPECT_EQ(other->tensors()[0].stack.size(), 3U);
  }
  for (const Format format : {Format::trit, Format::huggingface}) {
    ConvertOptions options;
    options.to = format;
    expect_error([&] { convert(*checkpoint, folder / "no", options); },
                 {"\"blk.0.ffn_up_exps.weight\" is TQ2_0 [2, 4, 256], a stack of matrices"});
  }
  // The same rows as a matrix are another tensor.
  file.tensors[0].dimensions = {256, 8};
  write_file(folder / "matrix", file.build());
  const auto differences = diff(*checkpoint, *open_checkpoint(folder / "matrix"));
  ASSERT_EQ(differences.size(), 1U);
  EXPECT_EQ(differences[0].what, "shape: [2, 4, 256] and [8, 256]");
}

/// One part of a split model with one tensor.
GgufBuilder part(std::uint16_t number, std::uint16_t count, const std::string& tensor, int tensors = -1) {
  GgufBuilder file;
  if (number == 0) {
    file.architecture("bitnet");
    file.pair("bitnet.block_count", 4, GgufBuilder::number(std::uint32_t{2}));
  }
  file.pair("split.no", 2, GgufBuilder::number(number)).pair("split.count", 2, GgufBuilder::number(count));
  if (tensors >= 0) {
    file.pair("split.tensors.count", 5, GgufBuilder::number(tensors));
  }
  file.tensor({tensor, {128}, 36, 0});  // I2_S: later parts have the architecture of the first
  file.data = std::string(32, static_cast<char>(0x55)) +
              GgufBuilder::number(0.25F * static_cast<float>(number + 1)) + std::string(28, '\0');
  return file;
}

TEST(Gguf, PartsOfAModel) {
  const TestFolder folder;
  const auto name = [](int number, int count) {
    return "m-0000" + std::to_string(number) + "-of-0000" + std::to_string(count) + ".gguf";
  };
  const auto write_parts = [&] {
    for (std::uint16_t i = 0; i < 3; ++i) {
      write_file(folder / name(i + 1, 3), part(i, 3, "w" + std::to_string(i), 3).build());
    }
  };
  write_parts();
  {
    const auto checkpoint = open_checkpoint(folder / name(1, 3));
    ASSERT_EQ(checkpoint->tensors().size(), 3U);
    EXPECT_NE(checkpoint->description().find("in 3 files, architecture \"bitnet\""), std::string::npos);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(test::read_matrix(*checkpoint, "w" + std::to_string(i)).scale,
                std::vector<float>{0.25F * static_cast<float>(i + 1)});
    }
    ConvertOptions options;
    options.to = Format::gguf;
    options.block_format = "q2_0";
    convert(*checkpoint, folder / "one", options);
    const auto one = open_checkpoint(folder / "one");
    EXPECT_TRUE(diff(*checkpoint, *one).empty());
    for (const GgufPair& pair : one->gguf_pairs()) {
      EXPECT_FALSE(pair.key.starts_with("split.")) << pair.key;
    }
  }
  expect_error([&] { open_checkpoint(folder / name(2, 3)); },
               {name(2, 3) + ": part 2 of 3 of a split model", "wanted the first one: " + name(1, 3)});
  std::filesystem::copy_file(folder / name(1, 3), folder / "renamed.gguf");
  expect_error([&] { open_checkpoint(folder / "renamed.gguf"); },
               {"renamed.gguf: part 1 of 3", "a name that ends in -00001-of-00003.gguf"});
  std::filesystem::copy_file(folder / name(2, 3), folder / "later.gguf");
  expect_error([&] { open_checkpoint(folder / "later.gguf"); },
               {"later.gguf: part 2 of 3", "wanted the first one"});

  const auto refused = [&](const std::vector<std::string>& parts) {
    expect_error([&] { open_checkpoint(folder / name(1, 3)); }, parts);
    write_parts();
  };
  std::filesystem::remove(folder / name(3, 3));
  refused({name(1, 3) + ": part 1 of 3", "part 3: ", name(3, 3) + ": cannot be read"});
  write_file(folder / name(2, 3), part(2, 3, "w1", 3).build());
  refused({name(2, 3) + ": split.no is 2, wanted 1", name(1, 3)});
  write_file(folder / name(2, 3), part(1, 4, "w1", 3).build());
  refused({name(2, 3) + ": split.count is 4, wanted 3"});
  write_file(folder / name(3, 3), plain().build());
  refused({name(3, 3) + ": split.no is missing, wanted 2"});
  write_file(folder / name(3, 3), part(2, 3, "w0", 3).build());
  refused({"\"w0\" occurs twice", name(1, 3), name(3, 3)});
  write_file(folder / name(1, 3), part(0, 3, "w0", 5).build());
  refused({"split.tensors.count is 5", "have 3 tensors"});
  write_file(folder / name(1, 3), part(0, 3, "w0", 3).pair("split.x", 7, std::string(1, '\1')).build());
  EXPECT_NO_THROW(open_checkpoint(folder / name(1, 3)));
}

/// llama-gguf-split leaves split.count = 0 in a model that it has joined.
TEST(Gguf, KeysOfAJoinedModelAreNotKept) {
  const TestFolder folder;
  for (const std::uint16_t count : {std::uint16_t{0}, std::uint16_t{1}}) {
    write_file(folder / "x", part(0, count, "w").build());
    ConvertOptions options;
    options.to = Format::gguf;
    options.block_format = "q2_0";
    convert(*open_checkpoint(folder / "x"), folder / "y", options);
    const auto joined = open_checkpoint(folder / "y");
    for (const GgufPair& pair : joined->gguf_pairs()) {
      EXPECT_FALSE(pair.key.starts_with("split.")) << pair.key;
    }
  }
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

/// A quantised float matrix is not decoded, so it keeps its type.
TEST(Gguf, BlocksWithScalesOfTheirOwnAreCopied) {
  const TestFolder folder;
  write_file(folder / "x", tq2_0({2, 4, -1, 0}, 0x99, 512));
  const auto checkpoint = open_checkpoint(folder / "x");
  ConvertOptions options;
  options.to = Format::gguf;
  options.block_format = "tq2_0";
  convert(*checkpoint, folder / "y", options);
  const auto copy = open_checkpoint(folder / "y");
  std::vector<std::byte> a(4 * 66);
  std::vector<std::byte> b(4 * 66);
  checkpoint->read_elements(checkpoint->tensors()[0], 0, a);
  copy->read_elements(copy->tensors()[0], 0, b);
  EXPECT_EQ(a, b);
  for (const char* type : {"tq1_0", "q2_0"}) {
    options.block_format = type;
    expect_error([&] { convert(*checkpoint, folder / "z", options); },
                 {"\"w.weight\"", "row 0, block 1", "wanted one scale for all blocks"});
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

/// Scales below float16's normal range, of every ternary type.
TEST(Gguf, SmallScales) {
  const TestFolder folder;
  std::mt19937 random(20261129);
  for (const char* type : {"tq1_0", "tq2_0", "q2_0"}) {
    SCOPED_TRACE(type);
    std::vector<std::string> warnings;
    ConvertOptions options;
    options.to = Format::gguf;
    options.block_format = type;
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
  ConvertOptions options;
  options.to = Format::gguf;
  convert(model, folder / "x", options);
  for (const char* type : {"tq1_0", "tq2_0", "q2_0"}) {
    options.block_format = type;
    expect_error([&] { convert(model, folder / "y", options); },
                 {"no ternary matrix to write as", "`trit pack`"});
    EXPECT_FALSE(std::filesystem::exists(folder / "y"));
  }
}

}  // namespace
}  // namespace trit::io

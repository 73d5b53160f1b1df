// SPDX-License-Identifier: MIT
//
// GGUF models that are split into several files.
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
    std::uintmax_t bytes = 0;
    for (int i = 1; i <= 3; ++i) {
      bytes += std::filesystem::file_size(folder / name(i, 3));
    }
    EXPECT_EQ(checkpoint->file_bytes(), bytes);
    EXPECT_NE(checkpoint->description().find("in 3 files, architecture \"bitnet\""), std::string::npos);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(test::read_matrix(*checkpoint, "w" + std::to_string(i)).scale,
                std::vector<float>{0.25F * static_cast<float>(i + 1)});
    }
    convert(*checkpoint, folder / "one", to_gguf("q2_0"));
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
               {"renamed.gguf: part 1 of 3", "a file name that ends in -00001-of-00003.gguf"});
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
  write_file(folder / name(3, 3), plain_gguf().build());
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
    convert(*open_checkpoint(folder / "x"), folder / "y", to_gguf("q2_0"));
    const auto joined = open_checkpoint(folder / "y");
    for (const GgufPair& pair : joined->gguf_pairs()) {
      EXPECT_FALSE(pair.key.starts_with("split.")) << pair.key;
    }
  }
}

}  // namespace
}  // namespace trit::io

// SPDX-License-Identifier: MIT
//
// convert: what a format cannot hold, names, counts; a full disk and an exception leave nothing behind.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::random_matrix;
using test::read_matrix;
using test::TestFolder;
using test::to_gguf;

TEST(Convert, WhatGgufCannotHold) {
  const TestFolder folder;
  std::mt19937 random(1);
  const auto refused = [&](const MemoryCheckpoint& model, const std::string& block_format,
                           const std::vector<std::string>& parts) {
    expect_error([&] { convert(model, folder / "x", to_gguf(block_format)); }, parts);
    EXPECT_TRUE(folder.names().empty()) << folder.names().front();
  };
  MemoryCheckpoint rows;
  rows.add("fc.weight", random_matrix(random, 8, 320, false));
  refused(rows, "tq1_0",
          {"tensor \"fc.weight\"", "rows of 320", "multiples of 256", "trit, hf, gguf with q2_0"});
  refused(rows, "tq2_0", {"multiples of 256"});
  refused(rows, "q4_0", {"\"q4_0\"", "wanted one of tq1_0, tq2_0, q2_0, pq2_0, ptq1_0"});
  MemoryCheckpoint odd;
  odd.add("fc.weight", random_matrix(random, 8, 100, true));
  refused(odd, "q2_0", {"multiples of 64", "Formats that can hold it: trit"});
  for (const float scale : {65520.0F, 1e-9F}) {
    MemoryCheckpoint model;
    TernaryMatrix matrix = random_matrix(random, 8, 256, false);
    matrix.scale = {scale};
    model.add("fc.weight", matrix);
    refused(model, "tq2_0", {"tensor \"fc.weight\"", "float16 rounds to", "trit, hf"});
  }
  MemoryCheckpoint bools;
  bools.add("mask", "BOOL", {2}, std::vector<std::byte>(2));
  refused(bools, "tq2_0", {"tensor \"mask\": BOOL [2]", "trit, hf"});
  MemoryCheckpoint long_name;
  long_name.add(std::string(64, 'n'), "F32", {1}, std::vector<std::byte>(4));
  refused(long_name, "tq2_0", {"a name of 64 bytes, GGUF takes at most 63", "--map"});
  refused(MemoryCheckpoint(), "tq2_0", {"no tensors to write"});
  ConvertOptions torchao;
  torchao.to = Format::torchao;
  expect_error([&] { convert(rows, folder / "x", torchao); },
               {"torchao can only be read", "trit, hf, gguf or safetensors"});
}

TEST(Convert, Names) {
  const NameMap map = NameMap::parse(
      R"json({"model\\.layers\\.([0-9]+)\\.up\\.(.*)": "blk.$1.ffn_up.$2", "drop.*": null, "exact": "other"})json",
      "map");
  EXPECT_EQ(map.apply("model.layers.12.up.weight"), "blk.12.ffn_up.weight");
  EXPECT_EQ(map.apply("xmodel.layers.12.up.weight"), "xmodel.layers.12.up.weight");
  EXPECT_EQ(map.apply("drop.me"), std::nullopt);
  EXPECT_EQ(map.apply("exact"), "other");
  const auto refused = [](const std::string& json, const std::vector<std::string>& parts) {
    expect_error([&] { NameMap::parse(json, "map"); }, parts);
  };
  refused(R"json({"(": "x"})json", {"map: \"(\" is not a regular expression"});
  refused(R"json({"a\\18446744073709551615": "x"})json", {"a number of more than 9 digits"});
  for (const char* nested : {"m.**x", ".*+", "(a+)*+", "a{2}*", "[ab]+{3}", "a+?*", "\\\\d+*"}) {
    refused(R"json({")json" + std::string(nested) + R"json(": "x"})json", {"a repetition of a repetition"});
  }
  // A backslash or brackets make characters of them, and a question mark makes a repetition lazy.
  for (const char* plain : {"a\\\\++", "[*+]+", "a+?", "\\\\*\\\\*", "[\\\\]*+]x"}) {
    NameMap::parse(R"json({")json" + std::string(plain) + R"json(": "x"})json", "map");
  }
  refused(R"json({"a": 1})json", {"the value of \"a\" is 1", "wanted a string"});
  refused(R"json({"a": {"b": "c"}})json", {"the value of \"a\""});
  refused(R"json({"a": "b", "a": "c"})json", {"occurs twice"});

  const TestFolder folder;
  std::mt19937 random(1);
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 4, 8, false));
  model.add("b.weight", random_matrix(random, 4, 8, false));
  model.set_metadata("trit.model",
                     R"({"nodes":[{"op":"bit_linear","name":"a"},{"op":"bit_linear","name":"b"}]})");
  const auto converted = [&](const char* json) {
    ConvertOptions options;
    options.names = NameMap::parse(json, "map");
    convert(model, folder / "x", options);
    return open_checkpoint(folder / "x");
  };
  const auto renamed = converted(R"json({"a\\.(.*)": "first.$1"})json");
  EXPECT_EQ(read_matrix(*renamed, "first.weight").codes, read_matrix(model, "a.weight").codes);
  EXPECT_NE(renamed->metadata().find("trit.model")->second.find("\"name\":\"first\""), std::string::npos);
  const auto dropped = converted(R"json({"a\\..*": null})json");
  EXPECT_EQ(dropped->tensors().size(), 1U);
  EXPECT_FALSE(dropped->metadata().contains("trit.model"));
  expect_error([&] { converted(R"json({"[ab]\\.weight": "c"})json"); }, {"would both be called \"c\""});
  expect_error([&] { converted(R"json({"a.*": "../c"})json"); }, {"the part \"..\""});
  expect_error([&] { converted(R"json({"a.weight": "b.weight_scale"})json"); },
               {"has the name under which the scale of \"b.weight\" is stored"});
}

TEST(Convert, CountsWhatWasWritten) {
  std::mt19937 random(1);
  const TestFolder folder;
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 8, 256, false));
  model.add("b.weight", random_matrix(random, 8, 256, false));
  model.add("b.bias", {8}, std::vector<float>(8));
  model.set_metadata("huggingface.config", "{}");
  for (const Format format : {Format::trit, Format::gguf, Format::huggingface}) {
    ConvertOptions options{.to = format};
    const Converted all = convert(model, folder / std::string(name_of(format)), options);
    EXPECT_EQ(all.tensors, 3U);
    EXPECT_EQ(all.ternary, 2U);
    options.names = NameMap::parse(R"json({"b.*": null})json", "map");
    const Converted some = convert(model, folder / (std::string(name_of(format)) + "-some"), options);
    EXPECT_EQ(some.tensors, 1U);
    EXPECT_EQ(some.ternary, 1U);
  }
}

/// For one scope: files of at most `bytes`. A write beyond fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &saved_);
    const rlimit limit{bytes, saved_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &saved_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit saved_{};
  void (*handler_)(int);
};

std::vector<ConvertOptions> every_target() {
  std::vector<ConvertOptions> options(4);
  options[1].to = Format::gguf;
  options[2].to = Format::huggingface;
  options[3].to = Format::huggingface;
  options[3].shard_bytes = 150'000;
  return options;
}

TEST(Convert, AFullDiskLeavesNothingBehind) {
  std::mt19937 random(1);
  MemoryCheckpoint model;
  for (int i = 0; i < 8; ++i) {
    model.add("layer." + std::to_string(i) + ".weight", random_matrix(random, 256, 1024, false));
  }
  for (const ConvertOptions& options : every_target()) {
    const TestFolder folder;
    {
      const FileSizeLimit limit(90'000);
      expect_error([&] { convert(model, folder / "x", options); },
                   {"cannot be written", "(after ", "free some space, or write to another place"});
    }
    EXPECT_TRUE(folder.names().empty()) << folder.names().front();
  }
}

TEST(Convert, AnExceptionFromTheProgressEndsIt) {
  std::mt19937 random(1);
  MemoryCheckpoint model;
  model.add("a.weight", random_matrix(random, 256, 1024, false));
  model.add("b.weight", random_matrix(random, 256, 1024, false));
  for (ConvertOptions& options : every_target()) {
    const TestFolder folder;
    std::uint64_t last = 0;
    std::uint64_t total = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t all) {
      EXPECT_GE(done, last);
      last = done;
      total = all;
    };
    convert(model, folder / "x", options);
    EXPECT_EQ(total, 2 * (65536U + 4U));
    EXPECT_GE(last, 2 * 65536U);
    const auto before = folder.names();
    options.progress = [&](std::uint64_t done, std::uint64_t) {
      if (done > 0) {
        throw std::runtime_error("stop");
      }
    };
    EXPECT_THROW(convert(model, folder / "y", options), std::runtime_error);
    EXPECT_EQ(folder.names(), before);
  }
}

}  // namespace
}  // namespace trit::io

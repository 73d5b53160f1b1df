// SPDX-License-Identifier: MIT
//
// The stored form, torchao's packing, float matrices made ternary, and files of other kinds.
#include <gtest/gtest.h>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/quantize.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::read_matrix;
using test::TestFolder;

const Metadata kOwnForm{{"trit.version", "1"}, {"trit.layout", "rows-2bit"}, {"trit.scale", "multiply"}};

struct Tensors {
  std::vector<std::uint8_t> codes{0x31, 0x04};
  std::vector<float> scale{0.5F};
  std::vector<float> norm = std::vector<float>(6, 1.0F);

  std::vector<TensorToWrite> list() const {
    return {
        {"fc.weight", "U8", {1, static_cast<std::int64_t>(codes.size())}, std::as_bytes(std::span(codes))},
        {"fc.weight_scale",
         "F32",
         {static_cast<std::int64_t>(scale.size())},
         std::as_bytes(std::span(scale))}};
  }
};

TEST(StoredForm, InFeatures) {
  const TestFolder folder;
  Tensors tensors;
  const auto in_features = [&](const std::vector<TensorToWrite>& list, const Metadata& metadata) {
    save_safetensors(folder / "x", list, metadata);
    return open_checkpoint(folder / "x")->find("fc.weight")->shape[1];
  };
  EXPECT_EQ(in_features(tensors.list(), kOwnForm), 8);
  Metadata metadata = kOwnForm;
  metadata["trit.in_features.fc.weight"] = "7";
  EXPECT_EQ(in_features(tensors.list(), metadata), 7);
  for (const char* wrong : {"4", "9", "-1", "7x", "", "99999999999999999999"}) {
    metadata["trit.in_features.fc.weight"] = wrong;
    expect_error([&] { in_features(tensors.list(), metadata); },
                 {"trit.in_features.fc.weight", "wanted 5..8"});
  }
  auto list = tensors.list();
  list.push_back({"fc.norm.weight", "F32", {6}, std::as_bytes(std::span(tensors.norm))});
  EXPECT_EQ(in_features(list, kOwnForm), 6);
}

TEST(StoredForm, WhatIsRefused) {
  const TestFolder folder;
  const auto open = [&](const std::vector<TensorToWrite>& list, const Metadata& metadata) {
    save_safetensors(folder / "x", list, metadata);
    return open_checkpoint(folder / "x");
  };
  Tensors tensors;
  for (const auto& [key, value] : kOwnForm) {
    Metadata metadata = kOwnForm;
    metadata[key] = "other";
    expect_error([&] { open(tensors.list(), metadata); },
                 {"metadata " + key + " is \"other\"", "wanted \"" + value});
  }
  tensors.scale = {1, 2};
  expect_error([&] { open(tensors.list(), kOwnForm); }, {"fc.weight_scale", "F32 [2], wanted F32 [1]"});
  tensors.scale = {std::numeric_limits<float>::infinity()};
  expect_error([&] { read_matrix(*open(tensors.list(), kOwnForm), "fc.weight"); },
               {"wanted finite and positive"});
  tensors.scale = {1};
  tensors.codes = {0x31, 0x08};
  expect_error([&] { read_matrix(*open(tensors.list(), kOwnForm), "fc.weight"); },
               {"row 0, column 5", "not a ternary code"});
  tensors.codes = {0x31, 0x10};
  auto list = tensors.list();
  list.push_back({"fc.norm.weight", "F32", {6}, std::as_bytes(std::span(tensors.norm))});
  expect_error([&] { read_matrix(*open(list, kOwnForm), "fc.weight"); },
               {"padding past the last column is not 0"});
  for (const char* name : {"../x", "a/..", "a\nb"}) {
    list = tensors.list();
    list[0].name = name;
    expect_error([&] { open(list, kOwnForm); }, {"tensor name"});
  }
}

TEST(Torchao, PackedInt8) {
  const TestFolder folder;
  const std::vector<std::uint8_t> codes{0x4c, 0x1f};
  const std::vector<float> scale{0.125F};
  for (const std::string separator : {".", "_", ":"}) {
    save_safetensors(
        folder / "x",
        std::vector<TensorToWrite>{
            {"fc.weight" + separator + "int_data", "I8", {2, 1}, std::as_bytes(std::span(codes))},
            {"fc.weight" + separator + "scale", "F32", {}, std::as_bytes(std::span(scale))}},
        {});
    const auto checkpoint = open_checkpoint(folder / "x");
    EXPECT_EQ(checkpoint->format(), Format::torchao);
    ASSERT_EQ(checkpoint->tensors().size(), 1U);
    const TernaryMatrix matrix = read_matrix(*checkpoint, "fc.weight");
    EXPECT_EQ(matrix.in_features, 4);
    EXPECT_EQ(matrix.codes, (std::vector<std::uint8_t>{0x31, 0xf4}));
    EXPECT_EQ(matrix.scale, scale);
  }
  const std::vector<std::uint8_t> bad{0x4c, 0x20};
  save_safetensors(folder / "x",
                   std::vector<TensorToWrite>{{"w.int_data", "I8", {2, 1}, std::as_bytes(std::span(bad))},
                                              {"w.scale", "F32", {}, std::as_bytes(std::span(scale))}},
                   {});
  expect_error([&] { read_matrix(*open_checkpoint(folder / "x"), "w"); }, {"tensor \"w\": row 1, column 1"});
}

TEST(Ternarized, IsPack) {
  std::mt19937 random(20240609);
  std::normal_distribution<float> normal(0, 0.02F);
  for (const auto granularity : {ScaleGranularity::tensor, ScaleGranularity::row}) {
    std::vector<float> w(37 * 1030);
    for (float& value : w) {
      value = normal(random);
    }
    MemoryCheckpoint source;
    source.add("a.weight", {37, 1030}, w);
    source.add("b.weight", {1030, 37}, w);
    source.add("c.bias", {37}, std::span(w).first(37));
    const auto packed =
        ternarized(source, granularity, [](std::string_view name) { return name != "b.weight"; });
    const TernaryMatrix wanted = pack(w, 37, 1030, granularity);
    const TernaryMatrix found = read_matrix(*packed, "a.weight");
    EXPECT_EQ(found.codes, wanted.codes);
    EXPECT_EQ(found.scale, wanted.scale);
    EXPECT_EQ(packed->find("b.weight")->kind, TensorKind::floating);
    EXPECT_EQ(packed->find("c.bias")->kind, TensorKind::floating);
    w[1030 * 5 + 7] = std::nanf("");
    MemoryCheckpoint bad;
    bad.add("a.weight", {37, 1030}, w);
    const auto refused = ternarized(bad, granularity);
    expect_error([&] { read_matrix(*refused, "a.weight"); },
                 {"tensor \"a.weight\"", "row 5, column 7", "finite"});
  }
}

TEST(Open, ForeignFiles) {
  const TestFolder folder;
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& parts) {
    test::write_file(folder / "x", bytes);
    expect_error([&] { open_checkpoint(folder / "x"); }, parts);
  };
  using namespace std::string_literals;
  const std::string zip = "PK\x03\x04"s + std::string(22, '\0');
  const auto first_file = [&](const std::string& name) {
    return zip + static_cast<char>(name.size()) + std::string(3, '\0') + name;
  };
  const std::vector<std::pair<std::string, std::string>> kinds{
      {"", "an empty file (0 bytes)"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 10\n",
       "a Git LFS pointer, not the model itself; run `git lfs pull`"},
      {"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"},
      {"\n  <HTML lang=\"en\">", "an HTML page"},
      {"<?xml version=\"1.0\"?><Error/>", "an XML document"},
      {"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"s, "a NumPy array (.npy)"},
      {first_file("x.npy"), "a NumPy archive (.npz)"},
      {first_file("archive/data.pkl"), "a PyTorch file (torch.save)"},
      {first_file("readme.txt"), "a ZIP archive"},
      {"PK\x03\x04rest", "a ZIP archive"},
      {"\x80\x02\x8a\x0al\xfc\x9cz\xf9 j\xa8P\x19."s, "a PyTorch file (torch.save)"},
      {"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94."s, "a Python pickle"},
      {"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"s, "a gzip archive"},
      {"\x28\xb5\x2f\xfd\x04"s, "a Zstandard archive"},
      {"\xfd"
       "7zXZ\0\0"s,
       "an XZ archive"},
      {"BZh91AY", "a bzip2 archive"},
      {std::string(257, 'x') + "ustar" + std::string(250, '\0'), "a tar archive"},
      {"\x89HDF\r\n\x1a\n", "an HDF5 file"},
      {"{\"model_type\": \"llama\"}", "JSON text"},
      {"tjgg\1\0\0\0"s, "ggml model file older than GGUF"}};
  for (const auto& [bytes, name] : kinds) {
    refused(bytes, {folder.path().string(), name, "wanted GGUF version 3, safetensors, or a folder"});
    expect_error([&] { SafetensorsFile::open(folder / "x"); },
                 {folder.path().string(), name, "wanted a safetensors file"});
  }
  test::write_file(folder / "x", "GGUF\3\0\0\0"s + std::string(64, '\0'));
  expect_error([&] { SafetensorsFile::open(folder / "x"); },
               {"a GGUF file", "trit convert", "wanted a safetensors file"});
  refused("GG", {"2 bytes"});
  refused("no format at all", {"a header of "});
  // The first bytes of a file of tensors are a length, which may look like anything.
  const std::string header = "{}" + std::string(0x8b1f - 2, ' ');
  test::write_file(folder / "x", "\x1f\x8b\0\0\0\0\0\0"s + header);
  EXPECT_TRUE(open_checkpoint(folder / "x")->tensors().empty());
  expect_error([&] { open_checkpoint(folder / "missing"); }, {"missing", "cannot be read"});
}

}  // namespace
}  // namespace trit::io

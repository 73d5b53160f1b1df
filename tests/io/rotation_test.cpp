// SPDX-License-Identifier: MIT
//
// Rotated weights: the keys of a GGUF file and of hadamard.json, checked, carried and refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

/// A key of the GGUF file, its type, and its bytes.
struct Key {
  std::uint32_t type = 0;
  std::string value;
};
std::string array(std::uint32_t type, std::size_t count, const std::string& bytes) {
  return GgufBuilder::number(type) + GgufBuilder::number(static_cast<std::uint64_t>(count)) + bytes;
}
std::string strings(const std::vector<std::string>& values) {
  std::string bytes;
  for (const std::string& value : values) {
    bytes += GgufBuilder::text(value);
  }
  return array(8, values.size(), bytes);
}
std::string signs(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    bytes += static_cast<char>(i % 3 == 0 ? -1 : 1);
  }
  return array(1, count, bytes);
}

std::map<std::string, Key> good_keys() {
  return {{"version", {4, GgufBuilder::number(std::uint32_t{1})}},
          {"block_size", {4, GgufBuilder::number(std::uint32_t{512})}},
          {"transform", {8, GgufBuilder::text("normalized-sylvester-walsh-hadamard")}},
          {"axis", {8, GgufBuilder::text("input-last-dimension")}},
          {"sign_mode", {8, GgufBuilder::text("explicit")}},
          {"sign_widths", {9, array(5, 2, GgufBuilder::number(1024) + GgufBuilder::number(512))}},
          {"sign_values", {9, signs(1536)}},
          {"weight_names", {9, strings({"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"})}},
          {"inverse_weight_names", {9, strings({"token_embd.weight"})}}};
}

std::string file_with(const std::map<std::string, Key>& keys, const std::string& architecture = "qwen35") {
  GgufBuilder file;
  file.architecture(architecture);
  for (const auto& [name, key] : keys) {
    file.pair("prism.hadamard." + name, key.type, key.value);
  }
  for (const auto& [name, rows, columns] : {std::tuple{"blk.0.ffn_up.weight", 2U, 512U},
                                            {"blk.0.ffn_down.weight", 1U, 1024U},
                                            {"token_embd.weight", 2U, 512U}}) {
    file.tensor({name, {columns, rows}, 142, file.data.size()});
    for (std::uint32_t i = 0; i < rows * columns / 128; ++i) {
      file.data += GgufBuilder::number(float_to_float16(static_cast<float>(i + 1))) + std::string(32, '\x66');
    }
    file.data.resize((file.data.size() + 31) / 32 * 32);
  }
  return file.build();
}

/// What is said of the file with one key changed; a key of type 99 is left out.
void expect_key_refused(const std::string& name, const Key& key, const std::vector<std::string>& parts) {
  std::map<std::string, Key> keys = good_keys();
  keys[name] = key;
  if (key.type == 99) {
    keys.erase(name);
  }
  SCOPED_TRACE(name);
  std::vector<std::string> all{"x.gguf", "prism.hadamard."};
  all.insert(all.end(), parts.begin(), parts.end());
  test::expect_refused(file_with(keys), all);
}

TEST(Rotation, WrongKeysAreNamed) {
  const auto u32 = [](std::uint32_t value) { return Key{4, GgufBuilder::number(value)}; };
  const auto text = [](const std::string& value) { return Key{8, GgufBuilder::text(value)}; };
  for (const char* name : {"version", "block_size", "transform", "axis", "sign_mode"}) {
    expect_key_refused(name, {99, ""}, {std::string("hadamard.") + name + "\" is missing"});
  }
  expect_key_refused("version", u32(2), {"version\" is 2", "wanted 1"});
  expect_key_refused("version", text("1"), {"version\" has \"1\""});
  for (const std::uint32_t block : {0U, 256U, 1000U, 8192U}) {
    expect_key_refused("block_size", u32(block), {"block_size\"", "512, 1024, 2048 or 4096"});
  }
  expect_key_refused("transform", text("haar"), {"transform\" is \"haar\""});
  expect_key_refused("axis", text("output"), {"axis\" is \"output\""});
  expect_key_refused("sign_mode", text("random"), {"sign_mode\"", "\"identity\" or \"explicit\""});
  expect_key_refused("sign_mode", text("identity"),
                     {"sign_widths\" is present beside sign_mode \"identity\""});
  expect_key_refused("sign_widths", {99, ""}, {"sign_widths\" is missing or empty"});
  expect_key_refused("sign_widths", {9, array(5, 2, GgufBuilder::number(512) + GgufBuilder::number(512))},
                     {"sign_widths\" has 512", "twice"});
  expect_key_refused("sign_widths", {9, array(5, 2, GgufBuilder::number(1025) + GgufBuilder::number(511))},
                     {"sign_widths\" has 1025", "multiples of block_size, 512"});
  expect_key_refused("sign_widths", {9, array(5, 1, GgufBuilder::number(1536))}, {"sign_widths\" lacks"});
  expect_key_refused("sign_widths", u32(1536), {"sign_widths\"", "wanted an array"});
  expect_key_refused("sign_values", {9, signs(1535)}, {"sign_values\" has 1535 values", "1536"});
  expect_key_refused("sign_values", {9, signs(1537)}, {"sign_values\" has 1537 values"});
  expect_key_refused("sign_values", {9, array(1, 1536, std::string(1536, '\2'))},
                     {"sign_values\" has 2", "1 or -1"});
  expect_key_refused("weight_names", {9, strings({"blk.7.ffn_up.weight"})},
                     {"weight_names\" names \"blk.7.ffn_up.weight\", which is no matrix"});
  expect_key_refused("weight_names", {9, array(5, 1, GgufBuilder::number(1))}, {"weight_names\" has 1"});
  expect_key_refused("gdn_v_grouped", u32(1), {"gdn_v_grouped\" is 1", "true or false"});
  expect_key_refused("fold_order", text("left"), {"unknown key", "fold_order"});
  std::map<std::string, Key> keys = good_keys();
  keys["block_size"] = u32(1024);
  keys["sign_widths"] = {9, array(5, 1, GgufBuilder::number(1024))};
  keys["sign_values"] = {9, signs(1024)};
  test::expect_refused(file_with(keys), {"\"blk.0.ffn_up.weight\" has 512 inputs", "block_size", "1024"});
  keys = good_keys();
  keys["gdn_v_grouped"] = {7, std::string(1, '\1')};
  test::expect_refused(file_with(keys, "llama"), {"gdn_v_grouped", "\"llama\"", "qwen35"});
}

const GgufPair* find(const Checkpoint& checkpoint, const std::string& key) {
  const auto at = std::ranges::find(checkpoint.gguf_pairs(), key, &GgufPair::key);
  return at == checkpoint.gguf_pairs().end() ? nullptr : &*at;
}

TEST(Rotation, IsCarriedThroughAllFormatsThatHoldIt) {
  const TestFolder folder;
  std::map<std::string, Key> keys = good_keys();
  keys["gdn_v_grouped"] = {7, std::string(1, '\1')};
  write_file(folder / "x.gguf", file_with(keys));
  const auto source = open_checkpoint(folder / "x.gguf");
  EXPECT_NE(source->description().find("rotated weights (prism.hadamard, blocks of 512)"), std::string::npos);
  const auto rotation = rotation_of(source->metadata(), "x");
  ASSERT_TRUE(rotation);
  EXPECT_EQ(rotation->block, 512);
  EXPECT_EQ(rotation->weights, (std::vector<std::string>{"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"}));
  EXPECT_EQ(rotation->look_ups, std::vector<std::string>{"token_embd.weight"});
  EXPECT_TRUE(rotation->grouped_v_heads);
  ASSERT_EQ(rotation->signs.size(), 2U);
  EXPECT_EQ(rotation->signs.at(1024)[0], -1);
  EXPECT_EQ(rotation->signs.at(512)[0], 1);   // 1024 % 3 = 1
  EXPECT_EQ(rotation->signs.at(512)[2], -1);  // 1026
  expect_error([&] { refuse_rotation(source->metadata(), "x.gguf"); }, {"x.gguf", "3 matrices are rotated"});

  // GGUF to GGUF: the pairs as they are.
  ConvertOptions options;
  options.to = Format::gguf;
  options.block_format = "ptq1_0";
  convert(*source, folder / "y.gguf", options);
  const auto copy = open_checkpoint(folder / "y.gguf");
  for (const GgufPair& pair : source->gguf_pairs()) {
    if (pair.key.starts_with("prism.")) {
      const GgufPair* found = find(*copy, std::string(pair.key));
      ASSERT_NE(found, nullptr) << pair.key;
      EXPECT_TRUE(std::ranges::equal(found->value, pair.value)) << pair.key;
    }
  }
  EXPECT_EQ(find(*copy, "trit.hadamard"), nullptr);
  EXPECT_TRUE(diff(*source, *copy).empty());

  // To the own form and to floats, and back.
  for (const Format to : {Format::trit, Format::safetensors}) {
    options.to = to;
    convert(*source, folder / "own", options);
    const auto own = open_checkpoint(folder / "own");
    EXPECT_EQ(own->metadata().at("trit.hadamard"), source->metadata().at("trit.hadamard"));
    const auto ternary = ternary_values(*own, 128);
    options.to = Format::gguf;
    options.architecture = "qwen35";
    convert(*ternary, folder / "back", options);
    const auto back = open_checkpoint(folder / "back");
    EXPECT_TRUE(diff(*source, *back).empty());
    EXPECT_NE(find(*back, "prism.hadamard.sign_values"), nullptr);
  }
  options.to = Format::huggingface;
  expect_error([&] { convert(*source, folder / "hf", options); }, {"prism.hadamard.*", "trit, gguf"});

  // New names; a matrix that is left out is no longer named.
  options.to = Format::gguf;
  options.names =
      NameMap::parse(R"json({"blk.0.ffn_up.weight": "a.weight", "token_embd.weight": null})json", "map");
  convert(*source, folder / "z.gguf", options);
  const auto renamed = open_checkpoint(folder / "z.gguf");
  const auto other = rotation_of(renamed->metadata(), "z");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->weights, (std::vector<std::string>{"a.weight", "blk.0.ffn_down.weight"}));
  EXPECT_TRUE(other->look_ups.empty());
  EXPECT_EQ(other->signs, rotation->signs);
  const auto differences = diff(*source, *renamed);
  EXPECT_EQ(differences.back().what, "the rotations differ");
  options.names = NameMap::parse(R"json({"blk.*": null, "token_embd.weight": null})json", "map");
  options.block_format.clear();
  expect_error([&] { convert(*source, folder / "none", options); }, {"no tensors to write"});
}

TEST(Rotation, HadamardJsonBesideSafetensors) {
  const TestFolder folder;
  std::mt19937 random(5);
  MemoryCheckpoint model;
  model.add("a.weight", test::random_grouped(random, 4, 1024, 128));
  model.add("b.weight", {2, 512}, std::vector<float>(1024, 0.5F));
  ConvertOptions options;
  options.to = Format::safetensors;
  convert(model, folder / "model.safetensors", options);
  nlohmann::json keys{{"prism.hadamard.version", 1},
                      {"prism.hadamard.block_size", 1024},
                      {"prism.hadamard.transform", "normalized-sylvester-walsh-hadamard"},
                      {"prism.hadamard.axis", "input-last-dimension"},
                      {"prism.hadamard.sign_mode", "identity"},
                      {"prism.hadamard.weight_names", {"a.weight"}}};
  const auto open = [&](const nlohmann::json& json) {
    write_file(folder / "hadamard.json", json.dump());
    return open_checkpoint(folder / "model.safetensors");
  };
  const auto checkpoint = open(keys);
  const auto rotation = rotation_of(checkpoint->metadata(), "x");
  ASSERT_TRUE(rotation);
  EXPECT_TRUE(rotation->signs.empty());
  EXPECT_EQ(rotation->block, 1024);
  convert(*ternary_values(*checkpoint), folder / "own", {});
  EXPECT_TRUE(rotation_of(open_checkpoint(folder / "own")->metadata(), "x"));
  keys["prism.hadamard.sign_mode"] = "explicit";
  keys["prism.hadamard.sign_widths"] = {1024};
  keys["prism.hadamard.sign_values"] = std::vector<float>(1024, -1.0F);
  const auto explicit_signs = rotation_of(open(keys)->metadata(), "x");
  ASSERT_TRUE(explicit_signs);
  EXPECT_EQ(explicit_signs->signs.at(1024)[1023], -1);
  keys["prism.hadamard.sign_values"] = std::vector<float>(1024, 0.5F);
  expect_error([&] { open(keys); }, {"hadamard.json", "\"prism.hadamard.sign_values\" has 0.5"});
  keys["prism.hadamard.sign_values"] = 1;
  expect_error([&] { open(keys); }, {"hadamard.json", "wanted an array"});
  keys["prism.hadamard.sign_values"] = std::vector<int>(1024, 1);
  keys["prism.hadamard.weight_names"] = {"b.weight"};
  expect_error([&] { open(keys); }, {"model.safetensors", "\"b.weight\" has 512 inputs", "block_size"});
  keys["prism.hadamard.weight_names"] = {"c.weight"};
  expect_error([&] { open(keys); }, {"\"prism.hadamard.weight_names\" names \"c.weight\""});
  keys["modules"] = 1;
  expect_error([&] { open(keys); }, {"unknown key \"modules\""});
  write_file(folder / "hadamard.json", "{");
  expect_error([&] { open_checkpoint(folder / "model.safetensors"); }, {"hadamard.json"});
  std::filesystem::remove(folder / "hadamard.json");
  EXPECT_FALSE(rotation_of(open_checkpoint(folder / "model.safetensors")->metadata(), "x"));
  EXPECT_NO_THROW(refuse_rotation(open_checkpoint(folder / "model.safetensors")->metadata(), "x"));
}

}  // namespace
}  // namespace trit::io

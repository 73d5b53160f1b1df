// SPDX-License-Identifier: MIT
//
// Checkpoints of transformers: what decides between the two scale conventions, shards, biases, norms, and
// what the format cannot hold.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "io/random_model.h"
#include "io/test_folder.h"
#include "trit/io.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

using test::expect_error;
using test::TestFolder;
using test::write_file;

struct File {
  std::vector<TensorToWrite> tensors;
  std::vector<std::vector<std::byte>> storage;

  File() { storage.reserve(32); }
  File& add(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape,
            std::vector<std::byte> bytes) {
    storage.push_back(std::move(bytes));
    tensors.push_back({name, dtype, std::move(shape), storage.back()});
    return *this;
  }
  File& floats(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> values) {
    std::vector<std::byte> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return add(name, "F32", std::move(shape), std::move(bytes));
  }
  void save(const std::filesystem::path& path, const Metadata& metadata = {}) const {
    save_safetensors(path, tensors, metadata);
  }
};

/// fc.weight: 4 rows of 2, all +1 in row 3, else 0; scale 0.25; bias 1 2 3 4.
File packed() {
  File file;
  file.add("fc.weight", "U8", {1, 2}, {std::byte{0x95}, std::byte{0x95}});
  file.floats("fc.weight_scale", {1}, {0.25F});
  file.floats("fc.bias", {4}, {1, 2, 3, 4});
  return file;
}

std::string config(const std::string& quantization) {
  return R"({"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet")" + quantization + "}}";
}

TEST(HuggingFace, TheConfigDecidesTheConvention) {
  struct Case {
    std::string config;
    float scale;
    std::vector<float> bias;
  };
  const std::vector<Case> cases{
      {config(""), 4, {1, 2, 3, 4}},
      {config(R"(, "linear_class": "bitlinear", "quantization_mode": "offline")"), 4, {1, 2, 3, 4}},
      {config(R"(, "linear_class": null)"), 4, {1, 2, 3, 4}},
      {config(R"(, "linear_class": "autobitlinear", "quantization_mode": "offline")"),
       0.25F,
       {0.25F, 0.5F, 0.75F, 1}}};
  for (const Case& expected : cases) {
    SCOPED_TRACE(expected.config);
    const TestFolder folder;
    packed().save(folder / "model.safetensors");
    write_file(folder / "config.json", expected.config);
    for (const auto& path : {folder.path(), folder / "model.safetensors"}) {
      const auto checkpoint = open_checkpoint(path);
      EXPECT_EQ(checkpoint->format(), Format::huggingface);
      const TernaryMatrix matrix = test::read_matrix(*checkpoint, "fc.weight");
      EXPECT_EQ(matrix.out_features, 4);
      EXPECT_EQ(matrix.codes, (std::vector<std::uint8_t>{0, 0, 0, 5}));
      EXPECT_EQ(matrix.scale, std::vector<float>{expected.scale});
      std::vector<float> bias(4);
      checkpoint->read_floats(*checkpoint->find("fc.bias"), 0, bias);
      EXPECT_EQ(bias, expected.bias);
      checkpoint->read_floats(*checkpoint->find("fc.bias"), 2, std::span(bias).first(1));
      EXPECT_EQ(bias[0], expected.bias[2]);
    }
  }
}

TEST(HuggingFace, NothingIsGuessed) {
  const TestFolder folder;
  packed().save(folder / "model.safetensors");
  const auto open = [&](const OpenOptions& options = {}) {
    return open_checkpoint(folder / "model.safetensors", options);
  };
  expect_error([&] { open(); }, {"--scale-convention multiply or divide", "there is no"});
  write_file(folder / "config.json", R"({"model_type": "llama"})");
  expect_error([&] { open(); }, {"--scale-convention multiply or divide", "no quantization_config"});
  write_file(folder / "config.json", R"({"quantization_config": {"quant_method": "gptq"}})");
  expect_error([&] { open(); }, {"--scale-convention multiply or divide"});
  for (const auto convention : {ScaleConvention::multiply, ScaleConvention::divide}) {
    const auto checkpoint = open({.scale_convention = convention});
    EXPECT_EQ(checkpoint->scale(*checkpoint->find("fc.weight"))[0],
              convention == ScaleConvention::multiply ? 0.25F : 4);
  }
  write_file(folder / "config.json", config(""));
  expect_error([&] { open({.scale_convention = ScaleConvention::multiply}); },
               {"\"bitlinear\" means --scale-convention divide", "the opposite was given"});
  write_file(folder / "config.json",
             config(R"(, "linear_class": "autobitlinear", "quantization_mode": "online")"));
  expect_error([&] { open(); }, {"\"online\" has float weights", "wanted \"offline\""});
  write_file(folder / "config.json", config(R"(, "linear_class": "other")"));
  expect_error([&] { open(); }, {"linear_class is \"other\"", "wanted \"bitlinear\" or \"autobitlinear\""});
  write_file(folder / "config.json", config(R"(, "linear_class": 7)"));
  expect_error([&] { open(); }, {"linear_class is 7", "wanted a string"});
  write_file(folder / "config.json",
             config(R"(, "linear_class": "bitlinear", "linear_class": "autobitlinear")"));
  expect_error([&] { open(); }, {"\"linear_class\" occurs twice"});
  write_file(folder / "config.json", "{\"a\": ");
  expect_error([&] { open(); }, {"config.json", "not valid JSON"});
  write_file(folder / "config.json", "[]");
  expect_error([&] { open(); }, {"wanted an object"});
  write_file(folder / "config.json", "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}");
  expect_error([&] { open(); }, {"nested deeper than 64"});
}

TEST(HuggingFace, TheConfigStopsOnlyWhatNeedsIt) {
  const TestFolder folder;
  File plain;
  plain.floats("fc.weight", {2, 2}, {1, 2, 3, 4});
  plain.save(folder / "model.safetensors");
  const std::string nothing_matters = R"({"model_type": "other", "limit": [0.0, Infinity, -Infinity, NaN],)"
                                      R"( "text": "NaN \" Infinity", "a": {"b": 1, "b": 2}, "a": 3})";
  for (const std::string& text :
       {nothing_matters, std::string("{\"a\": "), std::string("[]"), std::string("\xff"), std::string(),
        std::string("{\"a\":") + std::string(100, '[') + std::string(100, ']') + "}",
        "{\"a\": \"" + std::string(2 << 20, 'x') + "\"}", config(R"(, "linear_class": 7)"),
        config(R"(, "quantization_mode": "other")"),
        std::string(R"({"quantization_config": {"quant_method": "gptq", "linear_class": 7}})")}) {
    SCOPED_TRACE(text.substr(0, 100));
    write_file(folder / "config.json", text);
    for (const auto& path : {folder.path(), folder / "model.safetensors"}) {
      EXPECT_EQ(open_checkpoint(path)->tensors().size(), 1U);
    }
    convert(*open_checkpoint(folder.path()), folder / "own", {});
  }
  std::filesystem::remove(folder / "config.json");
  std::filesystem::create_directory(folder / "config.json");
  EXPECT_NE(open_checkpoint(folder.path())->description().find("not used: "), std::string::npos);
  std::filesystem::remove(folder / "config.json");

  // It is needed where a scale has to be understood, and what is of no concern stops nothing there.
  packed().save(folder / "model.safetensors");
  write_file(folder / "config.json",
             nothing_matters.substr(0, nothing_matters.size() - 1) +
                 R"(, "quantization_config": {"quant_method": "bitnet", "other": Infinity}})");
  EXPECT_EQ(open_checkpoint(folder.path())->scale(*open_checkpoint(folder.path())->find("fc.weight"))[0], 4);
  write_file(folder / "config.json", config(R"(, "rms_norm_eps": Infinity)"));
  EXPECT_EQ(open_checkpoint(folder.path())->tensors().size(), 2U);
  write_file(folder / "config.json", config(R"(, "use_rms_norm": NaN)"));
  expect_error([&] { open_checkpoint(folder.path()); }, {"use_rms_norm is NaN", "wanted true or false"});
  write_file(folder / "config.json", R"({"quantization_config": {"a": 1}, "quantization_config": {"b": 1}})");
  expect_error([&] { open_checkpoint(folder.path()); }, {"\"quantization_config\" occurs twice"});
  std::filesystem::remove(folder / "own");

  // torchao's tensors are what they are, whatever lies beside them.
  File torchao;
  torchao.add("w.int_data", "I8", {1, 1}, {std::byte{0x4c}}).floats("w.scale", {}, {1});
  torchao.save(folder / "torchao.safetensors");
  write_file(folder / "config.json", "{}");
  EXPECT_EQ(open_checkpoint(folder / "torchao.safetensors")->format(), Format::torchao);
}

TEST(HuggingFace, WhatIsNoJsonIsWrittenBack) {
  const TestFolder folder;
  std::mt19937 random(3);
  MemoryCheckpoint model;
  model.add("fc.weight", test::random_matrix(random, 8, 64, false));
  model.set_metadata("huggingface.config", R"({"a": [Infinity, -Infinity, NaN], "b": "NaN \" Infinity"})");
  ConvertOptions options;
  options.to = Format::huggingface;
  convert(model, folder / "x", options);
  const auto bytes = test::read_file(folder / "x" / "config.json");
  std::string text(bytes.begin(), bytes.end());
  std::erase_if(text, [](char c) { return c == '\n' || c == ' '; });
  EXPECT_EQ(text.find(R"({"a":[Infinity,-Infinity,NaN],"b":"NaN\"Infinity","quantization_config")"), 0U)
      << text;
  model.set_metadata("huggingface.config", "{");
  expect_error([&] { convert(model, folder / "y", options); }, {"config.json", "not valid JSON"});
}

TEST(HuggingFace, LinearWeightsByNameAndConfig) {
  MemoryCheckpoint model;
  const std::vector<float> values(16, 1);
  const std::vector<std::string> linear{"model.layers.0.q_proj.weight",   "fc1.weight",       "head.weight",
                                        "time_embedding.linear_1.weight", "a.gate.weight",    "c_attn.weight",
                                        "blk.0.attn_output.weight",       "classifier.weight"};
  const std::map<std::string, std::string> others{{"model.embed_tokens.weight", "an embedding"},
                                                  {"transformer.wte.weight", "an embedding"},
                                                  {"transformer.wpe.weight", "an embedding"},
                                                  {"token_embd.weight", "an embedding"},
                                                  {"bert.embeddings.word.weight", "an embedding"},
                                                  {"tok_embeddings.weight", "an embedding"},
                                                  {"x.relative_attention_bias.weight", "an embedding"},
                                                  {"lm_head.weight", "the output layer"},
                                                  {"output.weight", "the output layer"},
                                                  {"l.0.norm.weight", "a norm"},
                                                  {"l.0.ln_1.weight", "a norm"},
                                                  {"b.mlp.gate.weight", "a router of experts"},
                                                  {"blk.0.ffn_gate_inp.weight", "a router of experts"},
                                                  {"pos", "its name does not end in \".weight\""}};
  for (const std::string& name : linear) {
    model.add(name, {4, 4}, values);
  }
  for (const auto& [name, why] : others) {
    model.add(name, {4, 4}, values);
  }
  model.add("b.mlp.experts.0.up.weight", {4, 4}, values);
  model.add("b.mlp.experts.weight", {2, 2, 4}, values);
  model.add("conv.weight", {2, 2, 2, 2}, values);
  model.add("norm.weight", {16}, values);
  model.add("empty.weight", {0, 4}, std::span<const float>());
  model.add("ids.weight", "I64", {1, 1}, std::vector<std::byte>(8));
  const auto why = [&] { return find_linear_weights(model).why_not; };
  for (const auto& [name, reason] : others) {
    EXPECT_EQ(why()[name], reason) << name;
  }
  for (const std::string& name : linear) {
    EXPECT_FALSE(why().contains(name)) << name << ": " << why()[name];
  }
  EXPECT_FALSE(why().contains("b.mlp.experts.0.up.weight"));
  EXPECT_FALSE(why().contains("ids.weight"));
  EXPECT_EQ(why()["b.mlp.experts.weight"], "3 dimensions");
  EXPECT_EQ(why()["conv.weight"], "4 dimensions");
  EXPECT_EQ(why()["norm.weight"], "1 dimension");
  EXPECT_EQ(why()["empty.weight"], "empty");
  EXPECT_FALSE(find_linear_weights(model).bitnet);

  const auto with = [&](const std::string& text) { model.set_metadata("huggingface.config", text); };
  with(R"({"model_type": "bert"})");
  EXPECT_EQ(why()["classifier.weight"], "the output layer");
  with(R"({"model_type": "gpt2"})");
  EXPECT_NE(why()["c_attn.weight"].find("transposed"), std::string::npos);
  with("{");
  EXPECT_NE(find_linear_weights(model).config_problem, "");
  EXPECT_EQ(why()["lm_head.weight"], "the output layer");
  // A list decides as transformers does: an ending, a beginning up to a dot, an expression.
  const std::string named = "named by modules_to_not_convert of config.json";
  with(config(
      R"(, "modules_to_not_convert": ["q_proj", "a", "blk\\.[0-9]+\\.attn_.*", "fc", "time_embedding.linear"])"));
  EXPECT_TRUE(find_linear_weights(model).bitnet);
  EXPECT_EQ(why()["model.layers.0.q_proj.weight"], named);
  EXPECT_EQ(why()["a.gate.weight"], named);
  EXPECT_EQ(why()["blk.0.attn_output.weight"], named);
  for (const char* name : {"fc1.weight", "time_embedding.linear_1.weight", "lm_head.weight"}) {
    EXPECT_FALSE(why().contains(name)) << name << ": " << why()[name];
  }
  EXPECT_EQ(why()["model.embed_tokens.weight"], "an embedding");
  for (const char* hostile : {"(a+)+b", "a?a?a?a?a?aaaaa", "(a|a)(a|a)(a|a)(a|a)b", ".*.*.*.*x",
                              "a{23058430092136939520000}", "m.**..........+x", "a{2}*b"}) {
    with(config(R"(, "modules_to_not_convert": [")" + std::string(hostile) + "\"]"));
    expect_error([&] { find_linear_weights(model); }, {"modules_to_not_convert", hostile});
  }
  with(config(R"(, "modules_to_not_convert": ["s\\\\23058430092136939520000p"])"));  // a reference to a group
  expect_error([&] { find_linear_weights(model); }, {"modules_to_not_convert", "numbers of 9 digits"});
  with(config(R"(, "modules_to_not_convert": ["[", "*x"])"));  // no expressions
  EXPECT_FALSE(why().contains("fc1.weight"));
}

TEST(HuggingFace, TernaryValuesInFloats) {
  const TestFolder folder;
  File file;
  file.floats("fc.weight", {2, 3}, {1, -1, 0, 0, 0, 1}).floats("fc.weight_scale", {}, {0.5F});
  file.save(folder / "model.safetensors");
  write_file(folder / "config.json",
             config(R"(, "linear_class": "autobitlinear", "quantization_mode": "offline")"));
  const TernaryMatrix matrix = test::read_matrix(*open_checkpoint(folder.path()), "fc.weight");
  EXPECT_EQ(matrix.codes, (std::vector<std::uint8_t>{0x0d, 0x10}));
  File bad;
  bad.floats("fc.weight", {2, 3}, {1, -1, 0, 0, 0.5F, 1}).floats("fc.weight_scale", {}, {0.5F});
  bad.save(folder / "model.safetensors");
  expect_error([&] { test::read_matrix(*open_checkpoint(folder.path()), "fc.weight"); },
               {"row 1, column 1", "0.5", "wanted -1, 0 or 1"});
}

TEST(HuggingFace, RowsThatAreNoMultipleOfFourAreCutByTheBias) {
  const TestFolder folder;
  File file;
  file.add("fc.weight", "U8", {2, 1}, {std::byte{0x56}, std::byte{0x15}}).floats("fc.weight_scale", {1}, {1});
  file.floats("fc.bias", {7}, std::vector<float>(7));
  file.save(folder / "model.safetensors");
  write_file(folder / "config.json", config(""));
  const TernaryMatrix matrix = test::read_matrix(*open_checkpoint(folder.path()), "fc.weight");
  EXPECT_EQ(matrix.out_features, 7);
  EXPECT_EQ(matrix.codes, (std::vector<std::uint8_t>{1, 0, 0, 0, 0, 0, 0}));
  File wrong;
  wrong.add("fc.weight", "U8", {2, 1}, {std::byte{0x55}, std::byte{0x15}})
      .floats("fc.weight_scale", {1}, {1});
  wrong.floats("fc.bias", {4}, std::vector<float>(4));
  wrong.save(folder / "model.safetensors");
  expect_error([&] { open_checkpoint(folder.path()); }, {"packs 5..8 rows", "its bias has 4"});
}

TEST(HuggingFace, InvalidScalesOfABias) {
  const TestFolder folder;
  write_file(folder / "config.json",
             config(R"(, "linear_class": "autobitlinear", "quantization_mode": "offline")"));
  for (const float scale : {0.0F, -1.0F, std::numeric_limits<float>::quiet_NaN()}) {
    File file;
    file.add("fc.weight", "U8", {1, 2}, {std::byte{0x95}, std::byte{0x95}});
    file.floats("fc.weight_scale", {1}, {scale}).floats("fc.bias", {4}, {1, 2, 3, 4});
    file.save(folder / "model.safetensors");
    const auto checkpoint = open_checkpoint(folder.path());
    std::vector<float> bias(4);
    expect_error([&] { checkpoint->read_floats(*checkpoint->find("fc.bias"), 0, bias); },
                 {"fc.bias", "scale 0 is", "wanted finite and positive"});
  }
}

TEST(HuggingFace, InvalidCodesAndScales) {
  const TestFolder folder;
  write_file(folder / "config.json", config(""));
  File file;
  file.add("fc.weight", "U8", {1, 3}, {std::byte{0x55}, std::byte{0x55}, std::byte{0x75}});
  file.floats("fc.weight_scale", {1}, {1});
  file.save(folder / "model.safetensors");
  expect_error([&] { test::read_matrix(*open_checkpoint(folder.path()), "fc.weight"); },
               {"tensor \"fc.weight\"", "row 2, column 2"});
  for (const float scale : {0.0F, -1.0F, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    File bad;
    bad.add("fc.weight", "U8", {1, 1}, {std::byte{0x55}}).floats("fc.weight_scale", {1}, {scale});
    bad.save(folder / "model.safetensors");
    const auto checkpoint = open_checkpoint(folder.path());
    expect_error([&] { checkpoint->scale(*checkpoint->find("fc.weight")); }, {"wanted finite and positive"});
  }
}

TEST(HuggingFace, Shards) {
  const TestFolder folder;
  write_file(folder / "config.json", config(""));
  File first;
  first.add("fc.weight", "U8", {1, 2}, {std::byte{0x95}, std::byte{0x95}});
  first.save(folder / "a.safetensors");
  File second;
  second.floats("fc.weight_scale", {1}, {0.25F});
  second.save(folder / "b.safetensors");
  const auto index = [&](const std::string& map) {
    write_file(folder / "model.safetensors.index.json",
               R"({"metadata": {"total_size": 6, "loss": NaN}, "weight_map": )" + map + "}");
  };
  index(R"({"fc.weight": "a.safetensors", "fc.weight_scale": "b.safetensors"})");
  EXPECT_EQ(test::read_matrix(*open_checkpoint(folder.path()), "fc.weight").scale, std::vector<float>{4});
  EXPECT_EQ(
      test::read_matrix(*open_checkpoint(folder / "model.safetensors.index.json"), "fc.weight").scale.size(),
      1U);
  EXPECT_EQ(open_checkpoint(folder.path())->file_bytes(),
            std::filesystem::file_size(folder / "a.safetensors") +
                std::filesystem::file_size(folder / "b.safetensors"));

  // One of them alone is a part of a model; so it is under the names that transformers gives.
  const std::string parts = "model-0000";
  for (const char* number : {"1", "2"}) {
    const std::string name = parts + number + "-of-00002.safetensors";
    std::filesystem::copy_file(folder / "b.safetensors", folder / name);
  }
  write_file(
      folder / "other.safetensors.index.json",
      R"({"weight_map": {"x": "other-00001-of-00002.safetensors", "y": "other-00002-of-00002.safetensors"}})");
  std::filesystem::copy_file(folder / "b.safetensors", folder / "other-00002-of-00002.safetensors");
  const std::string index_path = (folder / "model.safetensors.index.json").string();
  for (const auto& names : {std::pair("a.safetensors", "model"), std::pair("b.safetensors", "model"),
                            std::pair("other-00002-of-00002.safetensors", "other")}) {
    const char* const lone = names.first;  // clang 14 cannot capture a structured binding
    const char* const index_name = names.second;
    const auto refused = [&](const auto& open) {
      expect_error(open,
                   {lone, "one of the 2 shards", (folder / index_name).string() + ".safetensors.index.json",
                    folder.path().string()});
    };
    refused([&] { open_checkpoint(folder / lone); });
    refused([&] { detect_format(folder / lone); });
  }
  EXPECT_EQ(open_checkpoint(folder / "model-00001-of-00002.safetensors")->tensors().size(), 1U);
  expect_error([&] { open_checkpoint(folder / "other.safetensors.index.json"); },
               {"other.safetensors.index.json", "the shard \"other-00001-of-00002.safetensors\"", "\"x\"",
                "is not in the folder"});

  index(R"({"fc.weight": "b.safetensors", "fc.weight_scale": "a.safetensors"})");
  expect_error([&] { open_checkpoint(folder.path()); },
               {"b.safetensors: no tensor \"fc.weight\"", index_path});
  for (const char* name : {"../a.safetensors", "/a.safetensors", "a.txt", "a\\u0000.safetensors"}) {
    index(R"({"fc.weight": ")" + std::string(name) + "\"}");
    expect_error([&] { open_checkpoint(folder.path()); }, {"wanted a .safetensors file in the same folder"});
  }
  index(R"({"fc.weight": "missing.safetensors"})");
  expect_error([&] { open_checkpoint(folder.path()); },
               {index_path, "the shard \"missing.safetensors\"", "\"fc.weight\"", "is not in the folder"});
  // A broken index says nothing of a file.
  write_file(folder / "model.safetensors.index.json", "{");
  EXPECT_EQ(open_checkpoint(folder / "b.safetensors")->tensors().size(), 1U);
  index("{}");
  expect_error([&] { open_checkpoint(folder.path()); }, {"no weight_map"});
  File again;
  again.add("fc.weight", "U8", {1, 2}, {std::byte{0x95}, std::byte{0x95}})
      .floats("fc.weight_scale", {1}, {1});
  again.save(folder / "b.safetensors");
  index(R"({"fc.weight": "a.safetensors", "fc.weight_scale": "b.safetensors"})");
  expect_error([&] { open_checkpoint(folder.path()); }, {"\"fc.weight\" occurs twice"});
  std::filesystem::remove(folder / "model.safetensors.index.json");
  expect_error([&] { open_checkpoint(folder.path()); }, {"a folder without model.safetensors"});
}

ConvertOptions to_hf(ScaleConvention convention) {
  ConvertOptions options;
  options.to = Format::huggingface;
  options.scale_convention = convention;
  return options;
}

TEST(HuggingFace, WhatItCannotHold) {
  const TestFolder folder;
  std::mt19937 random(3);
  const auto refused = [&](const MemoryCheckpoint& model, const ConvertOptions& options,
                           const std::vector<std::string>& parts) {
    expect_error([&] { convert(model, folder / "x", options); }, parts);
    EXPECT_TRUE(folder.names().empty()) << folder.names().front();
  };
  MemoryCheckpoint odd;
  odd.add("fc.weight", test::random_matrix(random, 6, 256, false));
  refused(odd, to_hf(ScaleConvention::multiply),
          {"tensor \"fc.weight\": 6 rows", "multiples of 4",
           "trit, gguf with tq1_0, gguf with tq2_0, gguf with q2_0"});
  MemoryCheckpoint rows;
  rows.add("fc.weight", test::random_matrix(random, 8, 64, true));
  refused(rows, to_hf(ScaleConvention::multiply), {"a scale per row", "trit, gguf with q2_0"});
  MemoryCheckpoint tiny;
  TernaryMatrix matrix = test::random_matrix(random, 8, 64, false);
  matrix.scale = {1e-39F};
  tiny.add("fc.weight", matrix);
  refused(tiny, to_hf(ScaleConvention::divide), {"1 / scale", "--scale-convention multiply"});
  MemoryCheckpoint mixed;
  mixed.add("a.weight", test::random_matrix(random, 8, 64, false));
  mixed.add("b.weight", test::random_matrix(random, 8, 64, false));
  const std::vector<float> norm(64, 1);
  mixed.add("a.norm.weight", {64}, norm);
  refused(mixed, to_hf(ScaleConvention::divide), {"layer \"a\" has a norm", "layer \"b\" has none"});
}

TEST(HuggingFace, TheWrittenConfig) {
  const TestFolder folder;
  std::mt19937 random(3);
  MemoryCheckpoint model;
  model.add("fc.weight", test::random_matrix(random, 8, 64, false));
  const std::vector<float> head(16, 1);
  model.add("c.weight", {4, 4}, head);
  model.set_metadata(
      "huggingface.config",
      R"({"zeta": 1, "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["x", "fc"]}, "alpha": [1, 2]})");
  convert(model, folder / "x", to_hf(ScaleConvention::multiply));
  const auto bytes = test::read_file(folder / "x" / "config.json");
  const std::string text(bytes.begin(), bytes.end());
  EXPECT_LT(text.find("\"zeta\""), text.find("\"alpha\"")) << text;
  EXPECT_NE(text.find(R"("linear_class": "autobitlinear")"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("use_rms_norm": false)"), std::string::npos) << text;
  // "c" would match "fc" as its ending.
  EXPECT_NE(text.find(R"("^c$")"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("lm_head")"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("x")"), std::string::npos) << text;
  EXPECT_EQ(text.find(R"("fc")"), std::string::npos) << text;  // it is ternary
  expect_error([&] { convert(model, folder / "x", to_hf(ScaleConvention::multiply)); },
               {"already exists, wanted a new or an empty folder"});
}

}  // namespace
}  // namespace trit::io

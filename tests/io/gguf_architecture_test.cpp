// SPDX-License-Identifier: MIT
//
// Names, keys and order of rows of llama.cpp, there and back. interop_gguf_test.py holds them against the
// package gguf, interop_llama_cpp.py against llama.cpp itself.
#include "io/gguf_architecture.h"

#include <gtest/gtest.h>

#include "io/random_model.h"
#include "io/test_folder.h"

namespace trit::io {
namespace {

using gguf::Architecture;
using test::TestFolder;
using test::to_gguf;

TEST(GgufArchitecture, NamesThereAndBack) {
  for (const Architecture& architecture : gguf::architectures()) {
    SCOPED_TRACE(architecture.class_name);
    std::vector<std::string> names{"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
    for (const gguf::ModuleName& module : architecture.block) {
      for (const char* ending : {".weight", ".bias", ".norm.weight"}) {
        for (const char* block : {"0", "7", "121"}) {
          names.push_back("model.layers." + std::string(block) + "." + std::string(module.huggingface) +
                          ending);
        }
      }
    }
    for (const std::string& name : names) {
      const auto there = gguf::llama_cpp_name(architecture, name);
      ASSERT_TRUE(there) << name;
      EXPECT_EQ(gguf::huggingface_name(architecture, *there), name);
    }
    for (const char* name :
         {"", "weight", "model.layers.0.weight", "model.layers..self_attn.q_proj.weight",
          "model.layers.x.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.scale",
          "model.layers.1234567.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.weight",
          "model.layers.0.self_attn.q_projx.weight", "fc1.weight"}) {
      EXPECT_EQ(gguf::llama_cpp_name(architecture, name), std::nullopt) << name;
    }
  }
}

TEST(GgufArchitecture, RowsThereAndBack) {
  EXPECT_EQ(gguf::row_in_huggingface(0, 6), 0);  // 0 3 1 4 2 5, and the next head
  EXPECT_EQ(gguf::row_in_huggingface(1, 6), 3);
  EXPECT_EQ(gguf::row_in_huggingface(2, 6), 1);
  EXPECT_EQ(gguf::row_in_huggingface(11, 6), 11);
  for (const std::int64_t size : {2, 6, 64, 128}) {
    for (std::int64_t row = 0; row < 3 * size; ++row) {
      EXPECT_EQ(gguf::row_in_llama_cpp(gguf::row_in_huggingface(row, size), size), row);
    }
  }
}

constexpr const char* kConfig =
    R"json({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "vocab_size": 9,
  "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
  "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "x": [null, {"y": 1}]})json";

/// Codes, scales of rows, floats of two types, and biases.
TEST(GgufArchitecture, AModelComesBackBitForBit) {
  constexpr unsigned kSeed = 20261130;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const TestFolder folder;
  MemoryCheckpoint model;
  const std::string block = "model.layers.0.";
  model.add(block + "self_attn.q_proj.weight", test::random_matrix(random, 64, 64, true));
  model.add(block + "self_attn.k_proj.weight", test::random_matrix(random, 32, 64, false));
  std::vector<std::byte> bytes(64 * 2);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random() % 64); });
  model.add(block + "self_attn.q_proj.bias", "BF16", {64}, bytes);
  model.add(block + "input_layernorm.weight", "F16", {64}, bytes);
  bytes.resize(32 * 3 * 2);
  model.add(block + "mlp.gate_proj.weight", "BF16", {32, 3}, bytes);
  model.add("other", {64}, std::vector<float>(64, 0.5F));
  model.set_metadata("huggingface.config", kConfig);
  std::vector<std::string> warnings;
  ConvertOptions options = to_gguf("q2_0");
  options.warn = [&](const std::string& text) { warnings.push_back(text); };
  convert(model, folder / "x", options);
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_NE(warnings[0].find("no place for tensor \"other\""), std::string::npos);
  EXPECT_NE(warnings[1].find("no tokenizer"), std::string::npos);
  const auto x = open_checkpoint(folder / "x");
  EXPECT_EQ(x->find("blk.0.attn_q.bias")->type, "F32");
  EXPECT_EQ(x->find("blk.0.ffn_gate.weight")->type, "BF16");
  // Row 1 of a head of 16 is row 8 of transformers.
  const TernaryMatrix q = test::read_matrix(model, block + "self_attn.q_proj.weight");
  const TernaryMatrix reordered = test::read_matrix(*x, "blk.0.attn_q.weight");
  EXPECT_TRUE(std::equal(q.codes.begin() + 16 * 8, q.codes.begin() + 16 * 9, reordered.codes.begin() + 16));
  EXPECT_EQ(reordered.scale[1], float16_to_float(float_to_float16(q.scale[8])));

  convert(*x, folder / "back", {});
  const auto back = open_checkpoint(folder / "back");
  EXPECT_TRUE(diff(model, *back, {.tolerance = 0.001}).empty());
  EXPECT_TRUE(diff(model, *x, {.tolerance = 0.001}).empty());
  ASSERT_EQ(back->tensors().size(), model.tensors().size());
  for (const TensorInfo& tensor : model.tensors()) {
    const TensorInfo& found = *back->find(tensor.name);
    if (tensor.kind == TensorKind::ternary) {
      EXPECT_EQ(test::read_matrix(*back, tensor.name).codes, test::read_matrix(model, tensor.name).codes);
      continue;
    }
    EXPECT_EQ(found.type, tensor.type) << tensor.name;
    std::vector<std::byte> a(tensor.stored_bytes);
    std::vector<std::byte> b(found.stored_bytes);
    model.read_elements(tensor, 0, a);
    back->read_elements(found, 0, b);
    EXPECT_EQ(a, b) << tensor.name;
  }
}

TEST(GgufArchitecture, RowsThatAreNoHeads) {
  const TestFolder folder;
  std::mt19937 random(1);
  MemoryCheckpoint model;
  model.add("model.layers.0.self_attn.q_proj.weight", test::random_matrix(random, 60, 64, false));
  model.set_metadata("huggingface.config", kConfig);
  test::expect_error([&] { convert(model, folder / "x", to_gguf("q2_0")); },
                     {"q_proj.weight\" has 60 rows, wanted 4 heads of an even size"});
}

}  // namespace
}  // namespace trit::io

// SPDX-License-Identifier: MIT
//
// The names of tensors and hyperparameters of an architecture in llama.cpp and in transformers.
//
//   transformers   model.layers.7.self_attn.q_proj.weight     config.json: num_attention_heads
//   llama.cpp      blk.7.attn_q.weight                        llama.attention.head_count
//
// llama.cpp rotates pairs of neighbouring rows of a llama's Q and K heads; transformers pairs a row of a
// head's first half with one of its second half. So the rows of these heads are reordered (rotary_row()).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf.h"
#include "trit/io.h"

namespace trit::io::gguf {

/// A module of a block (or of the model) under both names.
struct ModuleName {
  std::string_view huggingface;
  std::string_view llama_cpp;
};

struct Architecture {
  std::string_view class_name;    // config.json's architectures
  std::string_view model_type;    // config.json's model_type; empty where it does not tell
  std::string_view name;          // general.architecture
  bool pairs_neighbours = false;  // of Q and K, as above
  std::span<const ModuleName> block;
};
/// Those that are known: llama, qwen3, bitnet.
std::span<const Architecture> architectures();

/// A tensor's name in the other convention; nothing if the architecture has no such module.
std::optional<std::string> llama_cpp_name(const Architecture& architecture, std::string_view name);
std::optional<std::string> huggingface_name(const Architecture& architecture, std::string_view name);

struct Hyperparameters {
  std::int64_t blocks = 0, context = 0, embedding = 0, feed_forward = 0, heads = 0, kv_heads = 0,
               vocabulary = 0;
  std::int64_t head_size = 0;  // 0: embedding / heads
  double epsilon = 0, rope_base = 10000;
  double rope_factor = 1;  // of linear scaling
  bool tied_embeddings = false;
  bool online = false;  // transformers makes the float weights ternary in each forward pass
  std::string activation = {};

  std::int64_t size_of_head() const { return head_size != 0 ? head_size : embedding / heads; }
};

/// An architecture and its numbers. If `problem` says what is missing or not supported, the rest has no
/// meaning. Without an architecture and without a problem, the model is of another kind.
struct Model {
  const Architecture* architecture = nullptr;
  Hyperparameters numbers = {};
  std::string problem = {};

  bool is_known() const { return architecture != nullptr && problem.empty(); }
};

/// From the text of a config.json.
Model model_of_config(std::string_view config);
/// From the keys of a GGUF file, and the config.json that it may carry.
Model model_of_pairs(std::span<const GgufPair> pairs, std::string_view config);

/// Keys and values for llama.cpp: all that its loader needs but a tokenizer ("none"). `bytes` holds them.
std::vector<GgufPair> make_pairs(const Model& model, std::string_view architecture_name,
                                 std::string_view name, ByteWriter& bytes);
/// A config.json that says the same.
std::string make_config(const Model& model);

/// In heads of `size` rows: the row in transformers' order that llama.cpp has at `row`, and the inverse.
std::int64_t row_in_huggingface(std::int64_t row, std::int64_t size);
std::int64_t row_in_llama_cpp(std::int64_t row, std::int64_t size);

}  // namespace trit::io::gguf

// SPDX-License-Identifier: MIT
#include "io/gguf_architecture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "io/gguf.h"
#include "io/json_scalars.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io::gguf {
namespace {

constexpr std::array<ModuleName, 3> kModelNames{
    {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}}};

constexpr std::array<ModuleName, 9> kLlama{{{"input_layernorm", "attn_norm"},
                                            {"self_attn.q_proj", "attn_q"},
                                            {"self_attn.k_proj", "attn_k"},
                                            {"self_attn.v_proj", "attn_v"},
                                            {"self_attn.o_proj", "attn_output"},
                                            {"post_attention_layernorm", "ffn_norm"},
                                            {"mlp.gate_proj", "ffn_gate"},
                                            {"mlp.up_proj", "ffn_up"},
                                            {"mlp.down_proj", "ffn_down"}}};

/// kLlama and two more.
constexpr std::array<ModuleName, 11> with(ModuleName first, ModuleName second) {
  std::array<ModuleName, 11> names{};
  std::copy(kLlama.begin(), kLlama.end(), names.begin());
  names[9] = first;
  names[10] = second;
  return names;
}
constexpr auto kQwen3 = with({"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"});
constexpr auto kBitNet =
    with({"self_attn.attn_sub_norm", "attn_sub_norm"}, {"mlp.ffn_sub_norm", "ffn_sub_norm"});
// The class of the 1bitLLM models, from before transformers had its own; their model_type is "llama".
constexpr auto kFirstBitNet =
    with({"self_attn.inner_attn_ln", "attn_sub_norm"}, {"mlp.ffn_layernorm", "ffn_sub_norm"});

constexpr std::array<Architecture, 4> kArchitectures{{
    {"LlamaForCausalLM", "llama", "llama", true, kLlama},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", false, kQwen3},
    {"BitNetForCausalLM", "bitnet", "bitnet", false, kBitNet},
    {"BitnetForCausalLM", "", "bitnet", false, kFirstBitNet},
}};

// What a module's tensors are called; the norm in front of a ternary layer is this library's.
constexpr std::array<std::string_view, 3> kEndings{".norm.weight", ".weight", ".bias"};

/// The name of `from` as the one of `to`, where the modules of blocks begin with these prefixes.
std::optional<std::string> translate(const Architecture& architecture, std::string_view name,
                                     std::string_view ModuleName::*from, std::string_view from_prefix,
                                     std::string_view ModuleName::*to, std::string_view to_prefix) {
  for (const std::string_view ending : kEndings) {
    const std::string_view module = without_ending(name, ending);
    if (module.empty()) {
      continue;
    }
    const auto find = [&](std::span<const ModuleName> names, std::string_view wanted) {
      const auto at = std::find_if(names.begin(), names.end(),
                                   [&](const ModuleName& row) { return row.*from == wanted; });
      return at == names.end() ? std::string_view() : (*at).*to;
    };
    if (const std::string_view found = find(kModelNames, module); !found.empty()) {
      return std::string(found) + std::string(ending);
    }
    if (!module.starts_with(from_prefix)) {
      continue;
    }
    const std::string_view rest = module.substr(from_prefix.size());
    const std::size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
    if (digits == 0 || digits > 6 || digits == rest.size() || rest[digits] != '.') {
      continue;
    }
    if (const std::string_view found = find(architecture.block, rest.substr(digits + 1)); !found.empty()) {
      return std::string(to_prefix) + std::string(rest.substr(0, digits)) + "." + std::string(found) +
             std::string(ending);
    }
  }
  return std::nullopt;
}

const Architecture* find_architecture(std::string_view class_name, std::string_view model_type) {
  const auto at = std::find_if(kArchitectures.begin(), kArchitectures.end(), [&](const Architecture& row) {
    return class_name.empty() ? !row.model_type.empty() && row.model_type == model_type
                              : row.class_name == class_name;
  });
  return at == kArchitectures.end() ? nullptr : &*at;
}

/// config.json by path: "hidden_size", "rope_parameters.rope_theta", "architectures.0".
using Scalars = std::map<std::string, JsonScalar, std::less<>>;

Scalars read_scalars(std::string_view text) {
  Scalars scalars;
  for_each_scalar(text, "config.json", [&](std::span<const std::string> path, const JsonScalar& value) {
    if (path.size() <= 2) {
      scalars.emplace(path[0] + (path.size() == 2 ? "." + path[1] : ""), value);
    }
  });
  return scalars;
}

std::string text_at(const Scalars& scalars, std::string_view key) {
  const auto at = scalars.find(key);
  const auto* text = at == scalars.end() ? nullptr : std::get_if<std::string>(&at->second);
  return text == nullptr ? std::string() : *text;
}
std::optional<double> number_at(const Scalars& scalars, std::string_view key) {
  const auto at = scalars.find(key);
  const auto* number = at == scalars.end() ? nullptr : std::get_if<double>(&at->second);
  return number == nullptr ? std::nullopt : std::optional(*number);
}
bool is_true(const Scalars& scalars, std::string_view key) {
  const auto at = scalars.find(key);
  const bool* value = at == scalars.end() ? nullptr : std::get_if<bool>(&at->second);
  return value != nullptr && *value;
}

bool is_count(double value) {
  return value >= 1 && value <= static_cast<double>(INT32_MAX) && value == std::floor(value);
}

/// The rope of a config: base, and the factor of linear scaling.
void read_rope(const Scalars& config, Model& model) {
  // rope_parameters since transformers 5; before it rope_theta and rope_scaling, which may be null.
  for (const std::string_view group : {"rope_parameters", "rope_scaling"}) {
    const auto at = [&](std::string_view key) { return std::string(group) + "." + std::string(key); };
    std::string type = text_at(config, at("rope_type"));
    type = type.empty() ? text_at(config, at("type")) : type;
    model.numbers.rope_base = number_at(config, at("rope_theta")).value_or(model.numbers.rope_base);
    if (type == "linear") {
      model.numbers.rope_factor = number_at(config, at("factor")).value_or(1);
    } else if (!type.empty() && type != "default") {
      model.problem = "its rope scaling " + quoted_name(type) + " is not written (default and linear are)";
    }
  }
  model.numbers.rope_base = number_at(config, "rope_theta").value_or(model.numbers.rope_base);
  if (!(model.numbers.rope_base > 0) || !(model.numbers.rope_factor > 0) ||
      !std::isfinite(model.numbers.rope_base) || !std::isfinite(model.numbers.rope_factor)) {
    model.problem = "its rope_theta or rope factor is no positive number";
  }
}

/// What hyperparameters must be for rows to be reordered and for llama.cpp's loader.
void check_numbers(Model& model) {
  const Hyperparameters& numbers = model.numbers;
  if (model.problem.empty() && (numbers.heads % numbers.kv_heads != 0 || numbers.size_of_head() < 2 ||
                                numbers.size_of_head() % 2 != 0)) {
    model.problem = std::to_string(numbers.heads) + " heads of " + std::to_string(numbers.size_of_head()) +
                    " and " + std::to_string(numbers.kv_heads) +
                    " of K and V, wanted a multiple and an even size";
  }
}

/// Keys and values as bytes, and views of them once all are there.
class Pairs {
 public:
  explicit Pairs(std::string& bytes) : bytes_(bytes) {}

  void add(std::string_view key, std::string_view text) {
    begin(key, kString);
    number(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  void add(std::string_view key, std::int64_t value) {
    begin(key, kUint32);
    number(static_cast<std::uint32_t>(value));
  }
  void add(std::string_view key, double value) {
    begin(key, kFloat32);
    number(static_cast<float>(value));
  }
  std::vector<GgufPair> views() {
    begins_.emplace_back(bytes_.size(), 0);
    std::vector<GgufPair> pairs;
    for (std::size_t i = 0; i + 1 < begins_.size(); ++i) {
      const auto [begin, key_bytes] = begins_[i];
      const std::string_view all(bytes_);
      pairs.push_back(
          {all.substr(begin, key_bytes), std::as_bytes(std::span(all.substr(
                                             begin + key_bytes, begins_[i + 1].first - begin - key_bytes)))});
    }
    return pairs;
  }

 private:
  void begin(std::string_view key, std::uint32_t type) {
    begins_.emplace_back(bytes_.size(), key.size());
    bytes_ += key;
    number(type);
  }
  template <typename Value>
  void number(Value value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  std::string& bytes_;
  std::vector<std::pair<std::size_t, std::size_t>> begins_;  // of a key, and its length
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

std::optional<std::string> llama_cpp_name(const Architecture& architecture, std::string_view name) {
  return translate(architecture, name, &ModuleName::huggingface, "model.layers.", &ModuleName::llama_cpp,
                   "blk.");
}
std::optional<std::string> huggingface_name(const Architecture& architecture, std::string_view name) {
  return translate(architecture, name, &ModuleName::llama_cpp, "blk.", &ModuleName::huggingface,
                   "model.layers.");
}

Model model_of_config(std::string_view text) {
  Model model;
  Scalars config;
  try {
    config = read_scalars(text);
  } catch (const Error& error) {
    model.problem = error.what();
    return model;
  }
  model.architecture = find_architecture(text_at(config, "architectures.0"), text_at(config, "model_type"));
  if (model.architecture == nullptr) {
    return model;
  }
  Hyperparameters& numbers = model.numbers;
  const auto take = [&](std::string_view key, std::int64_t& value) {
    const auto found = number_at(config, key);
    if (found && is_count(*found)) {
      value = static_cast<std::int64_t>(*found);
    } else {
      model.problem = "its config.json has no " + std::string(key) + " from 1 to 2^31 - 1";
    }
  };
  read_rope(config, model);
  take("num_hidden_layers", numbers.blocks);
  take("max_position_embeddings", numbers.context);
  take("hidden_size", numbers.embedding);
  take("intermediate_size", numbers.feed_forward);
  take("num_attention_heads", numbers.heads);
  take("vocab_size", numbers.vocabulary);
  numbers.kv_heads = numbers.heads;
  if (number_at(config, "num_key_value_heads")) {
    take("num_key_value_heads", numbers.kv_heads);
  }
  if (number_at(config, "head_dim")) {
    take("head_dim", numbers.head_size);
  }
  numbers.epsilon = number_at(config, "rms_norm_eps").value_or(0);
  if (!(numbers.epsilon > 0) || !std::isfinite(numbers.epsilon)) {
    model.problem = "its config.json has no positive rms_norm_eps";
  }
  numbers.tied_embeddings = is_true(config, "tie_word_embeddings");
  numbers.activation = text_at(config, "hidden_act");
  numbers.online = text_at(config, "quantization_config.quant_method") == "bitnet" &&
                   text_at(config, "quantization_config.linear_class") == "autobitlinear" &&
                   text_at(config, "quantization_config.quantization_mode") == "online";
  check_numbers(model);
  return model;
}

Model model_of_pairs(std::span<const GgufPair> pairs, std::string_view config) {
  Model model;
  const GgufPair* pair = find_pair(pairs, "general.architecture");
  const std::string name(pair == nullptr ? "" : string_value(*pair).value_or(""));
  const Architecture* carried = config.empty() ? nullptr : model_of_config(config).architecture;
  if (carried != nullptr && carried->name == name) {
    model.architecture = carried;
  } else {
    const auto at = std::find_if(kArchitectures.begin(), kArchitectures.end(),
                                 [&](const Architecture& row) { return row.name == name; });
    model.architecture = at == kArchitectures.end() ? nullptr : &*at;
  }
  if (model.architecture == nullptr) {
    return model;
  }
  Hyperparameters& numbers = model.numbers;
  const auto number = [&](std::string_view key) -> std::optional<double> {
    const GgufPair* found = find_pair(pairs, name + "." + std::string(key));
    return found == nullptr ? std::nullopt : number_value(*found);
  };
  const auto take = [&](std::string_view key, std::int64_t& value) {
    if (const auto found = number(key); found && is_count(*found)) {
      value = static_cast<std::int64_t>(*found);
    } else {
      model.problem = "it has no key " + name + "." + std::string(key) + " from 1 to 2^31 - 1";
    }
  };
  take("block_count", numbers.blocks);
  take("context_length", numbers.context);
  take("embedding_length", numbers.embedding);
  take("feed_forward_length", numbers.feed_forward);
  take("attention.head_count", numbers.heads);
  numbers.kv_heads = numbers.heads;
  if (number("attention.head_count_kv")) {
    take("attention.head_count_kv", numbers.kv_heads);
  }
  if (number("attention.key_length")) {
    take("attention.key_length", numbers.head_size);
  }
  if (number("vocab_size")) {
    take("vocab_size", numbers.vocabulary);
  }
  numbers.epsilon = number("attention.layer_norm_rms_epsilon").value_or(1e-6);
  numbers.rope_base = number("rope.freq_base").value_or(numbers.rope_base);
  numbers.rope_factor = number("rope.scaling.factor").value_or(numbers.rope_factor);
  check_numbers(model);
  return model;
}

std::vector<GgufPair> make_pairs(const Model& model, std::string_view architecture_name,
                                 std::string_view name, std::string& bytes) {
  const Hyperparameters& numbers = model.numbers;
  Pairs pairs(bytes);
  const auto key = [&](std::string_view rest) {
    return std::string(architecture_name) + "." + std::string(rest);
  };
  pairs.add("general.architecture", architecture_name);
  pairs.add("general.type", "model");
  if (!name.empty() && is_utf8(name)) {
    pairs.add("general.name", name);
  }
  pairs.add(key("block_count"), numbers.blocks);
  pairs.add(key("context_length"), numbers.context);
  pairs.add(key("embedding_length"), numbers.embedding);
  pairs.add(key("feed_forward_length"), numbers.feed_forward);
  pairs.add(key("attention.head_count"), numbers.heads);
  pairs.add(key("attention.head_count_kv"), numbers.kv_heads);
  pairs.add(key("attention.layer_norm_rms_epsilon"), numbers.epsilon);
  if (numbers.head_size != 0) {
    pairs.add(key("attention.key_length"), numbers.head_size);
    pairs.add(key("attention.value_length"), numbers.head_size);
  }
  pairs.add(key("rope.dimension_count"), numbers.size_of_head());
  pairs.add(key("rope.freq_base"), numbers.rope_base);
  if (numbers.rope_factor != 1 || model.architecture->name == "bitnet") {
    pairs.add(key("rope.scaling.type"), "linear");
    pairs.add(key("rope.scaling.factor"), numbers.rope_factor);
  }
  pairs.add(key("vocab_size"), numbers.vocabulary);
  pairs.add("tokenizer.ggml.model", "none");
  return pairs.views();
}

std::string make_config(const Model& model) {
  const Hyperparameters& numbers = model.numbers;
  nlohmann::ordered_json config{
      {"architectures", nlohmann::ordered_json::array({std::string(model.architecture->class_name)})},
      {"model_type", std::string(model.architecture->model_type)},
      {"hidden_size", numbers.embedding},
      {"intermediate_size", numbers.feed_forward},
      {"num_hidden_layers", numbers.blocks},
      {"num_attention_heads", numbers.heads},
      {"num_key_value_heads", numbers.kv_heads},
      {"max_position_embeddings", numbers.context},
      {"rms_norm_eps", numbers.epsilon},
      {"rope_theta", numbers.rope_base},
      {"vocab_size", numbers.vocabulary},
      {"tie_word_embeddings", numbers.tied_embeddings}};
  if (numbers.head_size != 0) {
    config["head_dim"] = numbers.head_size;
  }
  if (numbers.rope_factor != 1) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", numbers.rope_factor}};
  }
  return config.dump(2);
}

// Row 2 j + i of a head in llama.cpp is row i size / 2 + j in transformers.
std::int64_t row_in_huggingface(std::int64_t row, std::int64_t size) {
  const std::int64_t head = row / size;
  const std::int64_t inside = row % size;
  return head * size + inside % 2 * (size / 2) + inside / 2;
}
std::int64_t row_in_llama_cpp(std::int64_t row, std::int64_t size) {
  const std::int64_t head = row / size;
  const std::int64_t inside = row % size;
  return head * size + inside % (size / 2) * 2 + inside / (size / 2);
}

}  // namespace trit::io::gguf

// SPDX-License-Identifier: MIT
//
// The hyperparameters of a model, from and to config.json and the keys of a GGUF file (gguf_architecture.h).
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "io/gguf_architecture.h"
#include "io/json_scalars.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io::gguf {
namespace {

const Architecture* find_architecture(std::string_view class_name, std::string_view model_type) {
  const auto at = std::ranges::find_if(architectures(), [&](const Architecture& row) {
    return class_name.empty() ? !row.model_type.empty() && row.model_type == model_type
                              : row.class_name == class_name;
  });
  return at == architectures().end() ? nullptr : &*at;
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

template <typename Value>
std::optional<Value> value_at(const Scalars& scalars, std::string_view key) {
  const auto at = scalars.find(key);
  const auto* value = at == scalars.end() ? nullptr : std::get_if<Value>(&at->second);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::string text_at(const Scalars& scalars, std::string_view key) {
  return value_at<std::string>(scalars, key).value_or("");
}

std::optional<double> number_at(const Scalars& scalars, std::string_view key) {
  return value_at<double>(scalars, key);
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
      model.problem = "its rope scaling " + quoted_name(type) + " is not supported (default and linear are)";
    }
  }
  model.numbers.rope_base = number_at(config, "rope_theta").value_or(model.numbers.rope_base);
  if (!(model.numbers.rope_base > 0) || !(model.numbers.rope_factor > 0) ||
      !std::isfinite(model.numbers.rope_base) || !std::isfinite(model.numbers.rope_factor)) {
    model.problem = "its rope_theta or rope factor is not a positive number";
  }
}

/// What hyperparameters must be for rows to be reordered and for llama.cpp's loader.
void check_numbers(Model& model) {
  const Hyperparameters& numbers = model.numbers;
  if (model.problem.empty() && (numbers.heads % numbers.kv_heads != 0 || numbers.size_of_head() < 2 ||
                                numbers.size_of_head() % 2 != 0)) {
    model.problem = std::to_string(numbers.heads) + " attention heads of size " +
                    std::to_string(numbers.size_of_head()) + " and " + std::to_string(numbers.kv_heads) +
                    " heads of K and V, wanted a multiple of the latter and an even size";
  }
}

/// A count that config.json and the keys of a GGUF file have, the latter behind "<architecture>.". The
/// vocabulary is required in config.json alone.
struct Count {
  std::string_view config;
  std::string_view key;
  std::int64_t Hyperparameters::*number;
  bool is_required = true;
};
constexpr std::array<Count, 8> kCounts{{
    {"num_hidden_layers", "block_count", &Hyperparameters::blocks},
    {"max_position_embeddings", "context_length", &Hyperparameters::context},
    {"hidden_size", "embedding_length", &Hyperparameters::embedding},
    {"intermediate_size", "feed_forward_length", &Hyperparameters::feed_forward},
    {"num_attention_heads", "attention.head_count", &Hyperparameters::heads},
    {"num_key_value_heads", "attention.head_count_kv", &Hyperparameters::kv_heads, false},
    {"head_dim", "attention.key_length", &Hyperparameters::head_size, false},
    {"vocab_size", "vocab_size", &Hyperparameters::vocabulary, false},
}};

/// Reads the counts: `find` gives the number with a name, `name` is the member that has it, and `problem` the
/// message for one that is missing or not a count.
template <typename Find, typename Problem>
void read_counts(Model& model, std::string_view Count::*name, const Find& find, const Problem& problem) {
  for (const Count& count : kCounts) {
    if (count.number == &Hyperparameters::kv_heads) {
      model.numbers.kv_heads = model.numbers.heads;
    }
    const std::optional<double> found = find(count.*name);
    const bool is_required =
        count.is_required || (name == &Count::config && count.number == &Hyperparameters::vocabulary);
    if (found && is_count(*found)) {
      model.numbers.*count.number = static_cast<std::int64_t>(*found);
    } else if (found || is_required) {
      model.problem = problem(count.*name);
    }
  }
}

/// Keys and values as bytes, and views of them once all are there.
class Pairs {
 public:
  explicit Pairs(ByteWriter& bytes) : bytes_(bytes) {}

  void add(std::string_view key, std::string_view text) {
    begin(key, kString);
    bytes_.string(text);
  }
  void add(std::string_view key, std::int64_t value) {
    begin(key, kUint32);
    bytes_.number(static_cast<std::uint32_t>(value));
  }
  void add(std::string_view key, double value) {
    begin(key, kFloat32);
    bytes_.number(static_cast<float>(value));
  }
  std::vector<GgufPair> views() {
    begins_.emplace_back(bytes_.bytes().size(), 0);
    std::vector<GgufPair> pairs;
    for (std::size_t i = 0; i + 1 < begins_.size(); ++i) {
      const auto [begin, key_bytes] = begins_[i];
      const auto pair = bytes_.bytes().subspan(begin, begins_[i + 1].first - begin);
      pairs.push_back({{reinterpret_cast<const char*>(pair.data()), key_bytes}, pair.subspan(key_bytes)});
    }
    return pairs;
  }

 private:
  void begin(std::string_view key, std::uint32_t type) {
    begins_.emplace_back(bytes_.bytes().size(), key.size());
    bytes_.append(std::as_bytes(std::span(key)));
    bytes_.number(type);
  }

  ByteWriter& bytes_;
  std::vector<std::pair<std::size_t, std::size_t>> begins_;  // of a key, and its length
};

}  // namespace

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
  read_rope(config, model);
  read_counts(
      model, &Count::config, [&](std::string_view key) { return number_at(config, key); },
      [](std::string_view key) {
        return "its config.json has no " + std::string(key) + " from 1 to 2^31 - 1";
      });
  numbers.epsilon = number_at(config, "rms_norm_eps").value_or(0);
  if (!(numbers.epsilon > 0) || !std::isfinite(numbers.epsilon)) {
    model.problem = "its config.json has no positive rms_norm_eps";
  }
  numbers.tied_embeddings = value_at<bool>(config, "tie_word_embeddings").value_or(false);
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
    const auto at = std::ranges::find(architectures(), name, &Architecture::name);
    model.architecture = at == architectures().end() ? nullptr : &*at;
  }
  if (model.architecture == nullptr) {
    return model;
  }
  Hyperparameters& numbers = model.numbers;
  const auto number = [&](std::string_view key) -> std::optional<double> {
    const GgufPair* found = find_pair(pairs, name + "." + std::string(key));
    return found == nullptr ? std::nullopt : number_value(*found);
  };
  read_counts(model, &Count::key, number, [&](std::string_view key) {
    return "it has no key " + name + "." + std::string(key) + " from 1 to 2^31 - 1";
  });
  numbers.epsilon = number("attention.layer_norm_rms_epsilon").value_or(1e-6);
  numbers.rope_base = number("rope.freq_base").value_or(numbers.rope_base);
  numbers.rope_factor = number("rope.scaling.factor").value_or(numbers.rope_factor);
  check_numbers(model);
  return model;
}

std::vector<GgufPair> make_pairs(const Model& model, std::string_view architecture_name,
                                 std::string_view name, ByteWriter& bytes) {
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
  for (const Count& count : std::span(kCounts).first<6>()) {  // up to the heads of K and V
    pairs.add(key(count.key), numbers.*count.number);
  }
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

}  // namespace trit::io::gguf

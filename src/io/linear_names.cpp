// SPDX-License-Identifier: MIT
#include "io/linear_names.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kExperts = "experts.";

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

/// "q_proj" of "model.layers.0.self_attn.q_proj".
std::string_view last_part(std::string_view module) {
  const std::size_t dot = module.rfind('.');
  return dot == std::string_view::npos ? module : module.substr(dot + 1);
}

bool has_part(std::string_view module, std::string_view wanted) {
  for (std::size_t begin = 0; begin <= module.size();) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    if (module.substr(begin, end - begin) == wanted) {
      return true;
    }
    begin = end + 1;
  }
  return false;
}

/// embed_tokens, wte, wpe, token_embd, position_embeddings, embeddings.*, tok_embeddings, pos_embed, and
/// those whose names say it otherwise: T5's shared and relative_attention_bias.
bool is_embedding(std::string_view module) {
  const std::string part = lower(last_part(module));
  constexpr std::array<std::string_view, 5> kNames{"wte", "wpe", "shared", "relative_attention_bias",
                                                   "token_types"};
  return part.find("embed") != std::string::npos || part.find("embd") != std::string::npos ||
         std::find(kNames.begin(), kNames.end(), part) != kNames.end() ||
         has_part(lower(module), "embeddings");
}

/// The layer that gives the logits of a language model.
bool is_output_layer(std::string_view module) {
  const std::string part = lower(last_part(module));
  return part == "lm_head" || part == "embed_out" || part == "output_layer" || module == "output" ||
         module.ends_with("predictions.decoder");
}

/// The last layer of a classifier of transformers, which it does not convert unless told to.
bool is_classifier(std::string_view module) {
  return module == "classifier" || module == "score" || module == "qa_outputs" ||
         module.starts_with("classifier.") || module.starts_with("classification_head.");
}

bool is_norm(std::string_view module) {
  const std::string part = lower(last_part(module));
  return part.find("norm") != std::string::npos || part == "ln" || part.starts_with("ln_");
}

}  // namespace

LinearNames::LinearNames(HuggingFaceConfig config, std::span<const TensorInfo> tensors)
    : config_(std::move(config)) {
  for (const TensorInfo& tensor : tensors) {
    for (std::size_t at = tensor.name.find(kExperts); at != std::string_view::npos;
         at = tensor.name.find(kExperts, at + 1)) {
      if (at == 0 || tensor.name[at - 1] == '.') {
        with_experts_.emplace(tensor.name.substr(0, at));
      }
    }
  }
}

bool LinearNames::is_router(std::string_view module) const {
  const std::string_view part = last_part(module);
  return part == "ffn_gate_inp" ||  // llama.cpp's name
         ((part == "gate" || part == "router") &&
          with_experts_.contains(module.substr(0, module.size() - part.size())));
}

/// Conv1D of transformers' first models keeps its matrix transposed, and is not a Linear.
bool LinearNames::is_conv1d(std::string_view module) const {
  constexpr std::array<std::string_view, 4> kModels{"gpt2", "openai-gpt", "imagegpt", "decision_transformer"};
  const std::string_view part = last_part(module);
  return std::find(kModels.begin(), kModels.end(), config_.model_type) != kModels.end() &&
         (part.starts_with("c_") || part == "q_attn");
}

std::string LinearNames::why_float(std::string_view name, std::span<const std::int64_t> shape) const {
  const std::string_view module = without_ending(name, kWeight);
  if (shape.size() != 2) {
    return std::to_string(shape.size()) + (shape.size() == 1 ? " dimension" : " dimensions");
  }
  if (shape[0] == 0 || shape[1] == 0) {
    return "empty";
  }
  if (module.empty()) {
    return "its name does not end in \".weight\"";
  }
  if (config_.is_bitnet() && is_not_converted(config_, module)) {
    return "named by modules_to_not_convert of config.json";
  }
  if (is_embedding(module)) {
    return "an embedding";
  }
  // A list of modules that does not name them makes transformers convert them.
  const bool listed = config_.is_bitnet() && config_.lists_modules;
  if (!listed && is_output_layer(module)) {
    return "the output layer";
  }
  if (!listed && !config_.model_type.empty() && is_classifier(module)) {
    return "the output layer";
  }
  if (is_norm(module)) {
    return "a norm";
  }
  if (is_router(module)) {
    return "a router of experts";
  }
  return is_conv1d(module) ? "a Conv1D, whose matrix is transposed" : "";
}

LinearWeights find_linear_weights(const Checkpoint& source) {
  LinearWeights found;
  HuggingFaceConfig config;
  const auto text = source.metadata().find("huggingface.config");
  try {
    if (text != source.metadata().end()) {
      config = parse_huggingface_config(text->second, "config.json");
    }
  } catch (const Error& error) {
    found.config_problem = error.what();
  }
  found.bitnet = config.is_bitnet();
  const LinearNames names(std::move(config), source.tensors());
  for (const TensorInfo& tensor : source.tensors()) {
    if (tensor.kind == TensorKind::floating) {
      if (std::string why = names.why_float(tensor.name, tensor.shape); !why.empty()) {
        found.why_not.emplace(tensor.name, std::move(why));
      }
    }
  }
  return found;
}

}  // namespace trit::io

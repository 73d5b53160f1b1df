// SPDX-License-Identifier: MIT
#include "io/llama_cpp_names.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "io/gguf_architecture.h"
#include "io/json_scalars.h"
#include "io/renamed_checkpoint.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

constexpr std::string_view kConfigKey = "huggingface.config";

std::string metadata_of(const Checkpoint& source, std::string_view key) {
  const auto at = source.metadata().find(key);
  return at == source.metadata().end() ? std::string() : at->second;
}

/// Size of the heads whose rows are reordered, of a tensor with transformers' name; else 0.
std::int64_t reordered_head(const gguf::Model& model, std::string_view name, const TensorInfo& tensor,
                            const Checkpoint& source) {
  const auto is = [&](std::string_view module) {
    return name.ends_with(std::string(module) + ".weight") || name.ends_with(std::string(module) + ".bias");
  };
  const bool q = is(".self_attn.q_proj");
  if (!model.architecture->pairs_neighbours || !(q || is(".self_attn.k_proj"))) {
    return 0;
  }
  const std::int64_t heads = q ? model.numbers.heads : model.numbers.kv_heads;
  const std::int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
  if (rows == 0 || rows % (2 * heads) != 0 || !tensor.stack.empty()) {
    throw Error(source.path().string() + ": tensor " + quoted_name(tensor.name) + " has " +
                std::to_string(rows) + " rows, wanted " + std::to_string(heads) + " heads of an even size");
  }
  return rows / heads;
}

void warn(const ConvertOptions& options, const std::string& text) {
  if (options.warn) {
    options.warn(text);
  }
}

bool is_renamed(const ConvertOptions& options, std::string_view name) {
  return !options.names.empty() && options.names.apply(name) != name;
}

/// The name of the folder, or of the file without its ending.
std::string name_of_model(const std::filesystem::path& path) {
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  const std::string_view base = without_ending(name, ".safetensors");
  return base.empty() ? name : std::string(base);
}

/// Warns where llama.cpp will not run a model as transformers does, or not at all.
void warn_of_gaps(const ConvertOptions& options, const gguf::Model& model,
                  const std::vector<std::string>& unknown, bool has_ternary) {
  const std::string name(model.architecture->name);
  if (!unknown.empty()) {
    warn(options,
         "llama.cpp's " + name + " has no place for tensor " + quoted_name(unknown.front()) +
             (unknown.size() == 1 ? "" : " and " + std::to_string(unknown.size() - 1) + " more") +
             ": their names are kept, and llama.cpp refuses a file with tensors that it does not know");
  }
  if (model.numbers.online && !has_ternary) {
    warn(options,
         "the weights are float (quantization_mode \"online\"), and llama.cpp computes with them "
         "unchanged; `trit pack` makes them ternary first");
  }
  const std::string& activation = model.numbers.activation;
  if (!activation.empty() && activation != "silu") {
    warn(options, "hidden_act is " + quoted_name(activation) + ", llama.cpp's " + name +
                      " computes silu: its results will differ");
  }
  warn(options,
       "no tokenizer is written (tokenizer.ggml.model is \"none\"): llama.cpp loads the file and accepts "
       "token ids; for text it lacks tokenizer.ggml.model, .pre, .tokens, .token_type, .scores or .merges "
       "and the ids of the special tokens");
}

}  // namespace

std::unique_ptr<Checkpoint> with_llama_cpp_names(const Checkpoint& source, const ConvertOptions& options) {
  const std::string config = metadata_of(source, kConfigKey);
  if (!source.gguf_pairs().empty() || config.empty()) {
    return nullptr;
  }
  const gguf::Model model = gguf::model_of_config(config);
  if (!model.is_known()) {
    if (model.architecture != nullptr) {
      warn(options, "names and keys are not those of llama.cpp: " + model.problem);
    }
    return nullptr;
  }
  // Another architecture was given, whose names of tensors are not known.
  if (!options.architecture.empty() && options.architecture != model.architecture->name) {
    return nullptr;
  }
  auto renamed = std::make_unique<RenamedCheckpoint>(source);
  nlohmann::ordered_json types = nlohmann::ordered_json::object();
  std::vector<std::string> unknown;
  std::size_t blocks = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    const auto name = is_renamed(options, tensor.name)
                          ? std::nullopt
                          : gguf::llama_cpp_name(*model.architecture, tensor.name);
    if (!name) {
      renamed->add(tensor, {tensor.name});
      if (!is_renamed(options, tensor.name)) {
        unknown.emplace_back(tensor.name);
      }
      continue;
    }
    if (*name == "output.weight" && model.numbers.tied_embeddings) {
      continue;  // transformers ignores it too
    }
    blocks += name->starts_with("blk.") ? 1 : 0;
    if (name->ends_with(".norm.weight")) {
      unknown.emplace_back(tensor.name);
    }
    const bool widened = tensor.kind == TensorKind::floating && tensor.shape.size() == 1 &&
                         (tensor.type == "F16" || tensor.type == "BF16");
    if (widened) {
      types[std::string(tensor.name)] = std::string(tensor.type);
    }
    renamed->add(tensor, {*name, widened ? "F32" : "", reordered_head(model, tensor.name, tensor, source)});
  }
  if (blocks == 0) {
    return nullptr;
  }
  if (!types.empty()) {
    renamed->set_metadata(kTypesKey, types.dump());
  }
  renamed->set_pairs(model, model.architecture->name, name_of_model(source.path()));
  renamed->finish(true);
  warn_of_gaps(options, model, unknown, std::ranges::any_of(renamed->tensors(), [](const TensorInfo& tensor) {
                 return tensor.kind == TensorKind::ternary;
               }));
  return renamed;
}

std::unique_ptr<Checkpoint> with_huggingface_names(const Checkpoint& source) {
  if (source.gguf_pairs().empty()) {
    return nullptr;
  }
  const std::string config = metadata_of(source, kConfigKey);
  gguf::Model model = gguf::model_of_pairs(source.gguf_pairs(), config);
  if (!model.is_known()) {
    return nullptr;
  }
  std::map<std::string, std::string, std::less<>> types;
  if (const std::string text = metadata_of(source, kTypesKey); !text.empty()) {
    for_each_scalar(text, source.path().string() + ": " + std::string(kTypesKey),
                    [&](std::span<const std::string> keys, const JsonScalar& value) {
                      const auto* type = std::get_if<std::string>(&value);
                      if (keys.size() == 1 && type != nullptr && (*type == "F16" || *type == "BF16")) {
                        types.emplace(keys[0], *type);
                      }
                    });
  }
  auto renamed = std::make_unique<RenamedCheckpoint>(source);
  std::size_t blocks = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    const auto name = gguf::huggingface_name(*model.architecture, tensor.name);
    if (!name) {
      renamed->add(tensor, {tensor.name});
      continue;
    }
    blocks += name->starts_with("model.layers.") ? 1 : 0;
    const auto type = types.find(*name);
    const bool narrowed = type != types.end() && tensor.type == "F32" && tensor.kind == TensorKind::floating;
    renamed->add(tensor, {*name, narrowed ? std::string_view(type->second == "F16" ? "F16" : "BF16") : "",
                          reordered_head(model, *name, tensor, source)});
  }
  if (blocks == 0) {
    return nullptr;
  }
  renamed->drop_metadata(kTypesKey);
  if (const TensorInfo* embedding = source.find("token_embd.weight");
      config.empty() && embedding != nullptr) {
    model.numbers.tied_embeddings = source.find("output.weight") == nullptr;
    model.numbers.vocabulary = model.numbers.vocabulary != 0 || embedding->shape.empty()
                                   ? model.numbers.vocabulary
                                   : embedding->shape[0];
    renamed->set_metadata(kConfigKey, gguf::make_config(model));
  }
  renamed->finish(false);
  return renamed;
}

}  // namespace trit::io

// SPDX-License-Identifier: MIT
#include "io/gguf_architecture.h"

#include <algorithm>
#include <array>

#include "io/gguf.h"
#include "io/tensor_names.h"

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
      const auto at = std::ranges::find(names, wanted, from);
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

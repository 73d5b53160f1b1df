// SPDX-License-Identifier: MIT
//
// The JSON texts beside a model: config.json, name maps, trit.model, hadamard.json. The first byte chooses.
#include <array>
#include <cstdlib>
#include <string_view>

#include "io/huggingface_config.h"
#include "io/model_graph.h"
#include "io/rotation.h"
#include "trit/error.h"
#include "trit/io.h"

namespace {

/// The names of a small model, for the entries of modules_to_not_convert.
void choose_linear_weights(std::string_view config) {
  trit::io::MemoryCheckpoint model;
  constexpr std::array<float, 1> kWeight{1};
  for (const char* name : {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
                           "aaaaaaaaaaaaaaaa.weight", "model.layers.11.mlp.gate.weight", "lm_head.weight"}) {
    model.add(name, {1, 1}, kWeight);
  }
  model.set_metadata("huggingface.config", std::string(config));
  trit::io::find_linear_weights(model);
}

/// What is read is written so that it is read again.
void read_rotation(std::string_view text) {
  trit::io::Metadata metadata{{std::string(trit::io::kRotationKey), std::string(text)}};
  const auto rotation = trit::io::rotation_of(metadata, "hadamard.json");
  metadata[std::string(trit::io::kRotationKey)] = trit::io::rotation_text(*rotation);
  const auto again = trit::io::rotation_of(metadata, "hadamard.json");
  if (again->block != rotation->block || again->signs != rotation->signs ||
      again->weights != rotation->weights || again->look_ups != rotation->look_ups) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        choose_linear_weights(text);
        trit::io::write_huggingface_config(std::string(text),
                                           trit::io::parse_huggingface_config(text, "config.json"));
        break;
      case 1:
        // Expressions whose matching takes exponential time are their author's: none is applied.
        trit::io::NameMap::parse(text, "map");
        break;
      case 2:
        read_rotation(text);
        break;
      default:
        trit::io::graph_layers(text);
        trit::io::rename_graph(text, [](const std::string& name) { return std::optional(name + "x"); });
    }
  } catch (const trit::Error&) {
  }
  return 0;
}

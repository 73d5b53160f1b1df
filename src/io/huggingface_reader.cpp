// SPDX-License-Identifier: MIT
//
// Packed BitNet checkpoints of transformers: config.json, and model.safetensors or the shards that
// model.safetensors.index.json names. The key weight_scale has two opposite meanings: config.json decides, or
// the caller; nothing is guessed.
#include <algorithm>
#include <optional>

#include "io/dtype.h"
#include "io/float_elements.h"
#include "io/huggingface_config.h"
#include "io/huggingface_files.h"
#include "io/mapped_file.h"
#include "io/rotation.h"
#include "io/safetensors_checkpoint.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Layout = SafetensorsCheckpoint::Layout;
namespace fs = std::filesystem;

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

/// A tensor of any shard.
struct Found {
  const TensorView* view = nullptr;
  std::size_t file = 0;
};
Found find_tensor(const SafetensorsCheckpoint& checkpoint, const std::string& name) {
  for (std::size_t i = 0; i < checkpoint.files().size(); ++i) {
    const auto& tensors = checkpoint.files()[i].tensors();
    if (const auto at = tensors.find(name); at != tensors.end()) {
      return {&at->second, i};
    }
  }
  return {};
}

bool is_scale(const TensorView* view) {
  return view != nullptr && is_float_dtype(view->dtype) && view->numel() == 1;
}
bool is_packed(const TensorView& view) { return view.dtype == "U8" && view.shape.size() == 2; }
bool is_float_matrix(const TensorView& view) { return is_float_dtype(view.dtype) && view.shape.size() == 2; }

/// Whether any file has a matrix of this kind whose scale lies in the same file or in another.
bool has_pair(const SafetensorsCheckpoint& checkpoint, bool (*is_matrix)(const TensorView&)) {
  return std::any_of(checkpoint.files().begin(), checkpoint.files().end(), [&](const SafetensorsFile& file) {
    return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& entry) {
      return is_matrix(entry.second) && is_scale(find_tensor(checkpoint, entry.first + "_scale").view);
    });
  });
}

/// What decides how the tensors are read.
struct Rules {
  bool packed = false;        // uint8 matrices with a scale
  bool values = false;        // float matrices of -1, 0, +1 with a scale
  bool online_norms = false;  // float matrices that are made ternary in each pass, with a norm in front
  ScaleConvention convention = ScaleConvention::multiply;
};

/// The scale of the ternary matrix `name`, or null if it is not one.
const TensorView* ternary_scale(const SafetensorsCheckpoint& checkpoint, const std::string& name,
                                const TensorView& view, const Rules& rules) {
  const bool candidate = (rules.packed && is_packed(view)) || (rules.values && is_float_matrix(view));
  if (!candidate) {
    return nullptr;
  }
  const Found scale = find_tensor(checkpoint, name + "_scale");
  return is_scale(scale.view) ? scale.view : nullptr;
}

/// out_features of a packed matrix of R rows: 4 R, unless the bias has up to three fewer.
std::int64_t out_features_of(const SafetensorsCheckpoint& checkpoint, const std::string& name,
                             const TensorView& view) {
  const std::int64_t most = 4 * view.shape[0];
  const Found bias = find_tensor(checkpoint, std::string(without_ending(name, "weight")) + "bias");
  if (bias.view != nullptr && bias.view->shape.size() == 1) {
    const std::int64_t rows = bias.view->shape[0];
    if (rows > most || rows < most - 3) {
      throw Error(checkpoint.path().string() + ": tensor " + quoted_name(name) + " packs " +
                  std::to_string(most - 3) + ".." + std::to_string(most) + " rows, its bias has " +
                  std::to_string(rows));
    }
    return rows;
  }
  return most;
}

Rules rules_for(const SafetensorsCheckpoint& checkpoint, const fs::path& config_path,
                const HuggingFaceConfig* config, const OpenOptions& options) {
  Rules rules;
  rules.packed = has_pair(checkpoint, is_packed);
  if (config != nullptr && config->is_bitnet()) {
    rules.values = config->linear_class == "autobitlinear" && !config->is_online();
    rules.online_norms = config->is_online() && config->use_rms_norm;
    rules.convention = config->convention();
    if (rules.packed && config->is_online()) {
      throw Error(config_path.string() +
                  ": linear_class \"autobitlinear\" with quantization_mode \"online\" has float "
                  "weights, but the file has packed ones; wanted \"offline\"");
    }
    if (!options.config_wins && options.scale_convention && *options.scale_convention != rules.convention) {
      throw Error(config_path.string() + ": linear_class \"" + config->linear_class +
                  "\" means --scale-convention " +
                  (rules.convention == ScaleConvention::multiply ? "multiply" : "divide") +
                  ", but the opposite was given");
    }
  } else if (rules.packed && !options.scale_convention) {
    throw Error(checkpoint.path().string() +
                ": packed weights with a weight_scale, and nothing says whether it multiplies or divides: " +
                (config == nullptr
                     ? "there is no " + config_path.string()
                     : config_path.string() + " has no quantization_config with quant_method \"bitnet\"") +
                "; choose with --scale-convention multiply or divide");
  } else if (rules.packed) {
    rules.convention = *options.scale_convention;
  }
  return rules;
}

class TensorTable {
 public:
  TensorTable(SafetensorsCheckpoint& checkpoint, const Rules& rules)
      : checkpoint_(checkpoint), rules_(rules) {}

  void add(const std::string& name, const TensorView& view, std::size_t file) {
    if (const TensorView* scale = ternary_scale(checkpoint_, name, view, rules_)) {
      add_matrix(name, view, *scale, file);
      return;
    }
    if (is_scale(&view) && scale_of_weight(name, "_scale", "") != nullptr) {
      return;
    }
    const TensorView* bias_scale = scale_of_weight(name, ".bias", ".weight");
    if (bias_scale != nullptr && rules_.convention == ScaleConvention::multiply &&
        is_float_dtype(view.dtype)) {
      checkpoint_.add_scaled_elements(name, view, *bias_scale, file);
    } else if (scale_of_weight(name, ".rms_norm.weight", ".weight") != nullptr || is_online_norm(name)) {
      const std::string layer(without_ending(name, ".rms_norm.weight"));
      checkpoint_.add_elements(checkpoint_.keep(layer + ".norm.weight"), view, file);
    } else {
      checkpoint_.add_elements(name, view, file);
    }
  }

 private:
  void add_matrix(const std::string& name, const TensorView& view, const TensorView& scale,
                  std::size_t file) {
    const bool packed = is_packed(view);
    if (packed && view.shape[0] > INT64_MAX / 4) {
      throw Error(checkpoint_.path().string() + ": tensor " + quoted_name(name) + ": shape " +
                  shape_text(view.shape) + ", wanted at most 2^61 rows");
    }
    checkpoint_.add_ternary(name, packed ? Layout::bitnet_packed : Layout::bitnet_values, view, scale,
                            packed ? out_features_of(checkpoint_, name, view) : view.shape[0], view.shape[1],
                            file);
  }

  /// If `name` is the `ending` of a ternary matrix (its scale, its bias, the norm in front of it): the
  /// matrix's scale.
  const TensorView* scale_of_weight(const std::string& name, std::string_view ending,
                                    const char* weight_ending) const {
    const std::string_view before = without_ending(name, ending);
    if (before.empty()) {
      return nullptr;
    }
    const std::string weight = std::string(before) + weight_ending;
    const Found found = find_tensor(checkpoint_, weight);
    return found.view == nullptr ? nullptr : ternary_scale(checkpoint_, weight, *found.view, rules_);
  }

  bool is_online_norm(const std::string& name) const {
    const std::string_view layer = without_ending(name, ".rms_norm.weight");
    if (!rules_.online_norms || layer.empty()) {
      return false;
    }
    const Found weight = find_tensor(checkpoint_, std::string(layer) + ".weight");
    return weight.view != nullptr && is_float_matrix(*weight.view);
  }

  SafetensorsCheckpoint& checkpoint_;
  const Rules& rules_;
};

/// Each tensor lies in the shard that the index names; one that lies in two is found by finish().
void check_index(const SafetensorsCheckpoint& checkpoint, const HuggingFaceFiles& files) {
  for (const auto& [name, file] : files.index) {
    const auto at =
        std::find(files.paths.begin(), files.paths.end(), files.folder / file) - files.paths.begin();
    if (!checkpoint.files()[static_cast<std::size_t>(at)].contains(name)) {
      throw Error((files.folder / file).string() + ": no tensor " + quoted_name(name) + ", which " +
                  files.index_path.string() + " lists there");
    }
  }
}

/// config.json, as far as it is of use.
struct Config {
  fs::path path;
  std::optional<HuggingFaceConfig> parsed;
  std::string text;     // kept with the model; empty if it is not text
  std::string problem;  // why it is not used
};

/// Throws Error for a bad config.json only if it has to say what scales mean: beside other tensors any file
/// of that name may lie.
Config read_config(const fs::path& folder, bool needed) {
  Config config;
  config.path = folder / "config.json";
  std::error_code ignored;
  if (!fs::exists(config.path, ignored)) {
    return config;
  }
  try {
    config.text = read_text_file(config.path, kMaxConfigBytes);
    config.parsed = parse_huggingface_config(config.text, config.path.string());
  } catch (const Error& error) {
    if (needed) {
      throw;
    }
    config.problem = error.what();
    config.text = is_utf8(config.text) ? config.text : "";
  }
  return config;
}

}  // namespace

bool has_bitnet_pairs(const SafetensorsFile& file) {
  return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& entry) {
    const auto scale = file.tensors().find(entry.first + "_scale");
    return is_packed(entry.second) && scale != file.tensors().end() && is_scale(&scale->second);
  });
}

std::unique_ptr<Checkpoint> open_huggingface(const fs::path& path, const OpenOptions& options) {
  const HuggingFaceFiles files = find_huggingface_files(path);
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(Format::huggingface, path);
  Metadata metadata;
  for (const fs::path& file : files.paths) {
    const SafetensorsFile& added = checkpoint->add_file(SafetensorsFile::open(file));
    metadata.insert(added.metadata().begin(), added.metadata().end());
  }
  check_index(*checkpoint, files);

  const bool has_scales = has_pair(*checkpoint, is_packed) || has_pair(*checkpoint, is_float_matrix);
  const Config config = read_config(files.folder, has_scales);
  if (!config.text.empty()) {
    metadata["huggingface.config"] = config.text;
  }
  add_rotation_file(metadata, files.folder);
  const Rules rules = rules_for(*checkpoint, config.path, config.parsed ? &*config.parsed : nullptr, options);
  checkpoint->set_convention(rules.convention);
  TensorTable table(*checkpoint, rules);
  for (std::size_t file = 0; file < checkpoint->files().size(); ++file) {
    for (const auto& [name, view] : checkpoint->files()[file].tensors()) {
      table.add(name, view, file);
    }
  }
  std::string description =
      "transformers, " + std::to_string(files.paths.size()) + (files.paths.size() == 1 ? " file" : " files");
  if (config.parsed && config.parsed->is_bitnet()) {
    description += ", linear_class " + config.parsed->linear_class + ", " + config.parsed->quantization_mode;
  } else if (rules.packed) {
    description += ", packed weights, weight_scale by --scale-convention";
  } else {
    description += ", no BitNet layers";
  }
  if (rules.packed || rules.values) {
    description +=
        rules.convention == ScaleConvention::multiply ? ": W = t * weight_scale" : ": W = t / weight_scale";
  }
  if (!config.problem.empty()) {
    description += "; not used: " + config.problem;
  }
  checkpoint->finish(std::move(description), std::move(metadata));
  return checkpoint;
}

}  // namespace trit::io

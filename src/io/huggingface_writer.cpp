// SPDX-License-Identifier: MIT
//
// A folder that transformers loads: config.json with a quantization_config, and model.safetensors or shards
// and their index. The matrices are packed (codecs/huggingface.h) with one scale each, in the convention that
// the linear_class of the config stands for:
//   bitlinear       W = t / weight_scale    y = x W^T + bias
//   autobitlinear   W = t * weight_scale    y = (x t^T + bias') * weight_scale, so bias' = bias /
//   weight_scale
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/atomic_folder.h"
#include "io/codecs/codes.h"
#include "io/codecs/huggingface.h"
#include "io/dtype.h"
#include "io/huggingface_config.h"
#include "io/model_graph.h"
#include "io/safetensors_stream.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::io {
namespace {

/// A tensor of the output.
struct Output {
  enum class Kind : std::uint8_t { elements, packed, values } kind = Kind::elements;
  const PlannedTensor* planned = nullptr;  // of elements and packed
  SafetensorsEntry entry;
  std::vector<float> values;  // of values
  std::uint64_t bytes = 0;
};

/// The one scale of a ternary matrix. Error if this format cannot hold the matrix.
float only_scale(const WritePlan& plan, const PlannedTensor& planned) {
  const TensorInfo& tensor = *planned.tensor;
  const std::vector<float> scale = read_scale(plan, tensor);
  const bool one = std::all_of(scale.begin(), scale.end(), [&](float value) { return value == scale[0]; });
  if (!one || tensor.shape[0] % 4 != 0) {
    throw Error(
        "tensor " + quoted_name(planned.name) + ": " +
        (one ? std::to_string(tensor.shape[0]) + " rows, transformers packs multiples of 4"
             : "a scale per row, transformers keeps one per matrix") +
        ". Formats that can hold it: " + formats_that_hold(tensor, one ? std::span(scale).first(1) : scale));
  }
  return scale[0];
}

class Outputs {
 public:
  explicit Outputs(const WritePlan& plan) : plan_(plan) {
    if (const auto graph = plan.metadata.find("trit.model"); graph != plan.metadata.end()) {
      graph_ = graph_layers(graph->second);
    }
    for (const PlannedTensor& planned : plan.tensors) {
      if (planned.tensor->kind == TensorKind::ternary) {
        layers_.emplace_back(layer_of(planned.name));
      }
    }
    find_norm();
    for (const PlannedTensor& planned : plan.tensors) {
      add(planned);
    }
  }

  std::vector<Output>& outputs() { return outputs_; }
  HuggingFaceConfig config() const;

 private:
  static std::string_view layer_of(std::string_view name) {
    const std::string_view layer = without_ending(name, ".weight");
    return layer.empty() ? name : layer;
  }
  const GraphLayer* graph_layer(std::string_view layer) const {
    const auto at =
        std::find_if(graph_.begin(), graph_.end(), [&](const GraphLayer& l) { return l.name == layer; });
    return at == graph_.end() ? nullptr : &*at;
  }
  bool has_norm(std::string_view layer) const {
    const GraphLayer* node = graph_layer(layer);
    return plan_.find(std::string(layer) + ".norm.weight") != nullptr || (node != nullptr && node->rms_norm);
  }
  bool is_ternary(std::string_view name) const {
    const PlannedTensor* planned = plan_.find(name);
    return planned != nullptr && planned->tensor->kind == TensorKind::ternary;
  }

  /// transformers puts an RMSNorm in front of all BitNet layers or of none, with one eps.
  void find_norm() {
    const auto with =
        std::find_if(layers_.begin(), layers_.end(), [&](const auto& l) { return has_norm(l); });
    use_rms_norm_ = with != layers_.end();
    const auto without =
        std::find_if(layers_.begin(), layers_.end(), [&](const auto& l) { return !has_norm(l); });
    if (use_rms_norm_ && without != layers_.end()) {
      throw Error(
          "layer " + quoted_name(*with) + " has a norm in front and layer " + quoted_name(*without) +
          " has none; transformers puts one in front of all BitNet layers or of none. Formats that can hold "
          "both: trit, gguf");
    }
    for (const std::string& layer : layers_) {
      const GraphLayer* node = graph_layer(layer);
      if (node == nullptr) {
        continue;
      }
      if (eps_ && *eps_ != node->eps) {
        throw Error("layer " + quoted_name(layer) + " has the norm eps " + std::to_string(node->eps) +
                    ", others " + std::to_string(*eps_) +
                    "; transformers has one for all. Formats that can hold both: trit, gguf");
      }
      eps_ = node->eps;
    }
  }

  void add(const PlannedTensor& planned) {
    const TensorInfo& tensor = *planned.tensor;
    if (tensor.kind == TensorKind::ternary) {
      add_layer(planned);
      return;
    }
    const std::string bias_of(without_ending(planned.name, ".bias"));
    const std::string norm_of(without_ending(planned.name, ".norm.weight"));
    if (!bias_of.empty() && is_ternary(bias_of + ".weight") && tensor.kind == TensorKind::floating &&
        plan_.options.scale_convention == ScaleConvention::multiply) {
      std::vector<float> bias(static_cast<std::size_t>(checked_numel(tensor.shape).value_or(0)));
      plan_.source.read_floats(tensor, 0, bias);
      const float scale = only_scale(plan_, *plan_.find(bias_of + ".weight"));
      for (float& value : bias) {
        value /= scale;
      }
      add_values(planned.name, {tensor.shape.begin(), tensor.shape.end()}, std::move(bias));
      return;
    }
    const bool norm = !norm_of.empty() && is_ternary(norm_of + ".weight");
    add_output(Output{Output::Kind::elements,
                      &planned,
                      {norm ? norm_of + ".rms_norm.weight" : planned.name,
                       std::string(tensor.type),
                       {tensor.shape.begin(), tensor.shape.end()}},
                      {},
                      0});
  }

  void add_layer(const PlannedTensor& planned) {
    const TensorInfo& tensor = *planned.tensor;
    const float scale = only_scale(plan_, planned);
    add_output(Output{
        Output::Kind::packed, &planned, {planned.name, "U8", {tensor.shape[0] / 4, tensor.shape[1]}}, {}, 0});
    const float stored = plan_.options.scale_convention == ScaleConvention::multiply ? scale : 1.0F / scale;
    if (!(stored > 0) || stored > std::numeric_limits<float>::max()) {
      throw Error("tensor " + quoted_name(planned.name) + ": 1 / scale is " + std::to_string(stored) +
                  "; --scale-convention multiply can hold it");
    }
    add_values(planned.name + "_scale", {1}, {stored});
    const std::string layer(layer_of(planned.name));
    if (use_rms_norm_ && plan_.find(layer + ".norm.weight") == nullptr) {
      add_values(layer + ".rms_norm.weight", {tensor.shape[1]},
                 std::vector<float>(static_cast<std::size_t>(tensor.shape[1]), 1.0F));
    }
  }

  void add_values(std::string name, std::vector<std::int64_t> shape, std::vector<float> values) {
    add_output(Output{
        Output::Kind::values, nullptr, {std::move(name), "F32", std::move(shape)}, std::move(values), 0});
  }
  void add_output(Output output) {
    output.bytes =
        static_cast<std::uint64_t>(checked_bytes(output.entry.dtype, output.entry.shape).value_or(0));
    outputs_.push_back(std::move(output));
  }

  const WritePlan& plan_;
  std::vector<GraphLayer> graph_;
  std::vector<std::string> layers_;  // with ternary weights
  bool use_rms_norm_ = false;
  std::optional<double> eps_;
  std::vector<Output> outputs_;
};

HuggingFaceConfig Outputs::config() const {
  HuggingFaceConfig config;
  const std::string what = "the base config.json";
  if (!plan_.options.base_config.empty()) {
    config = parse_huggingface_config(plan_.options.base_config, what);
  } else if (const auto carried = plan_.metadata.find("huggingface.config");
             carried != plan_.metadata.end()) {
    config = parse_huggingface_config(carried->second, what);
  }
  config.quant_method = "bitnet";
  config.linear_class =
      plan_.options.scale_convention == ScaleConvention::multiply ? "autobitlinear" : "bitlinear";
  config.quantization_mode = "offline";
  config.use_rms_norm = use_rms_norm_;
  config.rms_norm_eps = eps_.value_or(config.rms_norm_eps);
  auto& left_out = config.modules_to_not_convert;
  const auto leave_out = [&](const std::string& module) {
    // An entry matches module paths that it ends, and those that it begins; one that would match a ternary
    // layer is written as an anchored expression.
    const bool ambiguous = std::any_of(layers_.begin(), layers_.end(), [&](const std::string& layer) {
      return layer.ends_with(module) || layer.starts_with(module + ".");
    });
    std::string entry = module;
    if (ambiguous) {
      entry = "^";
      for (const char c : module) {
        entry += c == '.' ? "\\." : std::string(1, c);
      }
      entry += "$";
    }
    if (std::find(left_out.begin(), left_out.end(), entry) == left_out.end()) {
      left_out.push_back(entry);
    }
  };
  // Whatever is a float matrix here may be a Linear there. lm_head may be tied to the embedding and have no
  // tensor.
  for (const PlannedTensor& planned : plan_.tensors) {
    const std::string module(without_ending(planned.name, ".weight"));
    if (!module.empty() && planned.tensor->kind == TensorKind::floating &&
        planned.tensor->shape.size() == 2) {
      leave_out(module);
    }
  }
  if (!is_ternary("lm_head.weight")) {
    leave_out("lm_head");
  }
  return config;
}

void write_packed(const WritePlan& plan, const TensorInfo& tensor, SafetensorsStream& stream,
                  Progress& progress) {
  const auto inputs = static_cast<std::size_t>(tensor.shape[1]);
  const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
  const std::int64_t shared_rows = tensor.shape[0] / 4;
  const std::int64_t at_once = std::min(rows_per_read(tensor), shared_rows);
  std::array<std::vector<std::uint8_t>, 4> packed;
  std::array<std::vector<std::uint8_t>, 4> codes;
  for (std::size_t field = 0; field < 4; ++field) {
    packed[field].resize(static_cast<std::size_t>(at_once) * row_bytes);
    codes[field].resize(inputs);
  }
  std::vector<std::uint8_t> bytes;
  for (std::int64_t first = 0; first < shared_rows; first += at_once) {
    const std::int64_t rows = std::min(at_once, shared_rows - first);
    for (std::size_t field = 0; field < 4; ++field) {
      plan.source.read_codes(tensor, static_cast<std::int64_t>(field) * shared_rows + first, rows,
                             std::span(packed[field]).first(static_cast<std::size_t>(rows) * row_bytes));
    }
    bytes.resize(static_cast<std::size_t>(rows) * inputs);
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      for (std::size_t field = 0; field < 4; ++field) {
        unpack_codes(std::span(packed[field]).subspan(row * row_bytes, row_bytes), codes[field]);
      }
      huggingface::encode_rows(codes[0], codes[1], codes[2], codes[3],
                               std::span(bytes).subspan(row * inputs, inputs));
    }
    stream.write(std::as_bytes(std::span(bytes)));
    progress.add(tensor.stored_bytes / static_cast<std::uint64_t>(shared_rows) *
                 static_cast<std::uint64_t>(rows));
  }
  plan.source.release(tensor);
}

void write_file(const WritePlan& plan, const std::filesystem::path& path, std::span<const Output> outputs,
                const Metadata& metadata, Progress& progress) {
  std::vector<SafetensorsEntry> entries;
  for (const Output& output : outputs) {
    entries.push_back(output.entry);
  }
  SafetensorsStream stream(path, entries, metadata);
  for (const std::size_t index : stream.order()) {
    const Output& output = outputs[index];
    switch (output.kind) {
      case Output::Kind::values:
        stream.write(std::as_bytes(std::span(output.values)));
        break;
      case Output::Kind::packed:
        write_packed(plan, *output.planned->tensor, stream, progress);
        break;
      case Output::Kind::elements:
        copy_elements(
            plan, *output.planned->tensor, [&](std::span<const std::byte> bytes) { stream.write(bytes); },
            progress);
    }
  }
  stream.commit();
}

/// Indexes of the first output of each file, and the end.
std::vector<std::size_t> cut(std::span<const Output> outputs, std::uint64_t shard_bytes) {
  std::vector<std::size_t> cuts{0};
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (shard_bytes != 0 && bytes != 0 && bytes + outputs[i].bytes > shard_bytes) {
      cuts.push_back(i);
      bytes = 0;
    }
    bytes += outputs[i].bytes;
  }
  cuts.push_back(outputs.size());
  return cuts;
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  write_file_atomically(path, std::span(&bytes, 1));
}

}  // namespace

void write_huggingface(const WritePlan& plan, const std::filesystem::path& out) {
  Outputs collected(plan);
  std::vector<Output>& outputs = collected.outputs();
  const auto carried = plan.metadata.find("huggingface.config");
  const std::string& base = !plan.options.base_config.empty() ? plan.options.base_config
                            : carried != plan.metadata.end()  ? carried->second
                                                              : plan.options.base_config;
  const std::string config = write_huggingface_config(base, collected.config());
  Metadata metadata = plan.metadata;
  metadata.erase("huggingface.config");
  metadata["format"] = "pt";

  AtomicFolder folder(out);
  Progress progress(plan);
  const std::vector<std::size_t> cuts = cut(outputs, plan.options.shard_bytes);
  const std::size_t files = cuts.size() - 1;
  nlohmann::json index;
  std::uint64_t total = 0;
  for (std::size_t file = 0; file < files; ++file) {
    std::array<char, 64> name{"model.safetensors"};
    if (files > 1) {
      std::snprintf(name.data(), name.size(), "model-%05zu-of-%05zu.safetensors", file + 1, files);
    }
    const auto part = std::span(outputs).subspan(cuts[file], cuts[file + 1] - cuts[file]);
    write_file(plan, folder.folder() / name.data(), part, metadata, progress);
    for (const Output& output : part) {
      index["weight_map"][output.entry.name] = name.data();
      total += output.bytes;
    }
  }
  if (files > 1) {
    index["metadata"]["total_size"] = total;
    write_text(folder.folder() / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  write_text(folder.folder() / "config.json", config);
  folder.commit();
}

}  // namespace trit::io

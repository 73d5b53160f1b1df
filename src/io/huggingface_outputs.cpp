// SPDX-License-Identifier: MIT
#include "io/huggingface_outputs.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "io/dtype.h"
#include "io/huggingface_config.h"
#include "io/linear_names.h"
#include "io/model_graph.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Output = HuggingFaceOutput;

/// The one scale of a ternary matrix. Error if this format cannot hold the matrix.
float only_scale(const WritePlan& plan, const PlannedTensor& planned) {
  const TensorInfo& tensor = *planned.tensor;
  if (const std::int64_t group = plan.source.group(tensor); group != 0) {
    throw Error("tensor " + quoted_name(planned.name) + ": a scale per group of " + std::to_string(group) +
                " inputs, transformers keeps one per matrix. Formats that can hold it: " +
                formats_that_hold(tensor, {}, group));
  }
  const std::vector<float> scale = plan.source.scale(tensor);
  plan.source.release(tensor);  // the scales of a GGUF file are spread over its data
  const bool one = std::all_of(scale.begin(), scale.end(), [&](float value) { return value == scale[0]; });
  if (!one || tensor.shape[0] % 4 != 0) {
    throw Error("tensor " + quoted_name(planned.name) + ": " +
                (one ? std::to_string(tensor.shape[0]) + " rows, transformers packs multiples of 4"
                     : "a scale per row, transformers keeps one per matrix") +
                ". Formats that can hold it: " +
                formats_that_hold(tensor, one ? std::span(scale).first(1) : scale, 0));
  }
  return scale[0];
}

class Outputs {
 public:
  explicit Outputs(const WritePlan& plan) : plan_(plan), base_(base_config(plan)) {
    if (const auto graph = plan.metadata.find("trit.model"); graph != plan.metadata.end()) {
      graph_ = graph_layers(graph->second);
    }
    for (const PlannedTensor& planned : plan.tensors) {
      if (planned.tensor->kind == TensorKind::ternary) {
        layers_.emplace_back(layer_of(planned.name));
      }
    }
    find_convention();
    find_norm();
    for (const PlannedTensor& planned : plan.tensors) {
      add(planned);
    }
  }

  std::vector<Output>& outputs() { return outputs_; }
  /// The text of config.json.
  std::string config() const;

 private:
  struct Base {
    std::string text;  // empty: the model came without
    HuggingFaceConfig config;
  };
  /// The config.json to start from: the caller's, or the one that the model carries.
  static Base base_config(const WritePlan& plan) {
    const auto carried = plan.metadata.find("huggingface.config");
    Base base;
    if (!plan.options.base_config.empty()) {
      base.text = plan.options.base_config;
    } else if (carried != plan.metadata.end()) {
      base.text = carried->second;
    }
    if (!base.text.empty()) {
      base.config = parse_huggingface_config(base.text, "the base config.json");
    }
    return base;
  }

  /// What the model was and the caller did not ask to change.
  void find_convention() {
    const HuggingFaceConfig& config = base_.config;
    convention_ = plan_.options.scale_convention.value_or(config.is_bitnet() ? config.convention()
                                                                             : ScaleConvention::multiply);
    if (!config.is_bitnet() || !config.is_online()) {
      // A float model stays the model that its config.json describes.
      copied_config_ = layers_.empty() && !base_.text.empty() && !config.is_bitnet();
      return;
    }
    if (layers_.empty() && convention_ == ScaleConvention::divide) {
      throw Error(
          "linear_class \"bitlinear\" (--scale-convention divide) needs packed weights, but this model's are "
          "float and become ternary in each pass (quantization_mode \"online\"); `trit pack` packs them");
    }
    copied_config_ = layers_.empty();
    const LinearNames names(config, plan_.source.tensors());
    for (const PlannedTensor& planned : plan_.tensors) {
      const TensorInfo& tensor = *planned.tensor;
      if (!layers_.empty() && tensor.kind == TensorKind::floating &&
          names.why_float(planned.name, tensor.shape).empty()) {
        throw Error("tensor " + quoted_name(planned.name) +
                    " is float, to become ternary in each pass (quantization_mode \"online\" of "
                    "config.json), but " +
                    quoted_name(layers_.front()) +
                    " is packed; transformers has one mode for all layers: pack all of them or none");
      }
    }
  }

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

  /// Whether the entry of modules_to_not_convert would have transformers take a ternary layer for a float
  /// one.
  bool names_a_layer(const std::string& entry) const {
    HuggingFaceConfig alone;
    alone.modules_to_not_convert = {entry};
    try {
      return std::any_of(layers_.begin(), layers_.end(),
                         [&](const std::string& layer) { return is_not_converted(alone, layer); });
    } catch (const Error&) {
      return false;  // an expression that could take too long to match: it is kept unchanged
    }
  }

  /// Whether the float matrix has a norm in front as a BitNet layer of transformers that is made ternary in
  /// each pass.
  bool is_online_layer(std::string_view weight) const {
    const PlannedTensor* planned = plan_.find(weight);
    return copied_config_ && base_.config.is_bitnet() && base_.config.use_rms_norm && planned != nullptr &&
           planned->tensor->kind == TensorKind::floating && planned->tensor->shape.size() == 2;
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
        convention_ == ScaleConvention::multiply) {
      std::vector<float> bias(static_cast<std::size_t>(checked_numel(tensor.shape).value_or(0)));
      plan_.source.read_floats(tensor, 0, bias);
      const float scale = only_scale(plan_, *plan_.find(bias_of + ".weight"));
      for (float& value : bias) {
        value /= scale;
      }
      add_values(planned.name, {tensor.shape.begin(), tensor.shape.end()}, std::move(bias));
      return;
    }
    const bool norm =
        !norm_of.empty() && (is_ternary(norm_of + ".weight") || is_online_layer(norm_of + ".weight"));
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
    const float stored = convention_ == ScaleConvention::multiply ? scale : 1.0F / scale;
    if (!(stored > 0) || stored > std::numeric_limits<float>::max()) {
      throw Error("tensor " + quoted_name(planned.name) + ": 1 / scale is " + std::to_string(stored) +
                  ", which float32 cannot hold; use --scale-convention multiply");
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
  Base base_;
  bool copied_config_ = false;  // the weights are what base_ says
  ScaleConvention convention_ = ScaleConvention::multiply;
  std::vector<GraphLayer> graph_;
  std::vector<std::string> layers_;  // with ternary weights
  bool use_rms_norm_ = false;
  std::optional<double> eps_;
  std::vector<Output> outputs_;
};

std::string Outputs::config() const {
  if (copied_config_) {
    return base_.text;
  }
  HuggingFaceConfig config = base_.config;
  const bool was_bitlinear = config.is_bitnet() && config.linear_class == "bitlinear";
  config.quant_method = "bitnet";
  config.linear_class = convention_ == ScaleConvention::multiply ? "autobitlinear" : "bitlinear";
  if (!was_bitlinear || config.linear_class != "bitlinear") {
    config.quantization_mode = "offline";  // bitlinear has no other, whatever its config says
  }
  config.use_rms_norm = use_rms_norm_;
  config.rms_norm_eps = eps_.value_or(config.rms_norm_eps);
  auto& left_out = config.modules_to_not_convert;
  std::erase_if(left_out, [&](const std::string& entry) { return names_a_layer(entry); });
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
  return write_huggingface_config(base_.text, config);
}

}  // namespace

HuggingFaceModel plan_huggingface(const WritePlan& plan) {
  Outputs outputs(plan);
  std::string config = outputs.config();
  return {std::move(outputs.outputs()), std::move(config)};
}

}  // namespace trit::io

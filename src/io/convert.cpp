// SPDX-License-Identifier: MIT
//
// convert: names the tensors, collects the metadata, and calls the writer of the format.
#include <algorithm>

#include "base/atomic_file.h"
#include "io/atomic_folder.h"
#include "io/dtype.h"
#include "io/llama_cpp_names.h"
#include "io/model_graph.h"
#include "io/rotation.h"
#include "io/tensor_names.h"
#include "io/write_plan.h"
#include "trit/error.h"

namespace trit::io {
namespace {

std::vector<PlannedTensor> plan_tensors(const Checkpoint& source, const NameMap& names) {
  std::vector<PlannedTensor> planned;
  planned.reserve(source.tensors().size());
  for (const TensorInfo& tensor : source.tensors()) {
    if (auto name = names.apply(tensor.name)) {
      if (*name != tensor.name) {
        check_tensor_name(*name, "the new name of tensor " + quoted_name(tensor.name));
      }
      planned.push_back({std::move(*name), &tensor});
    }
  }
  std::ranges::sort(planned, {}, &PlannedTensor::name);
  const auto twice = std::ranges::adjacent_find(planned, {}, &PlannedTensor::name);
  if (twice != planned.end()) {
    throw Error("the tensors " + quoted_name(twice->tensor->name) + " and " +
                quoted_name((twice + 1)->tensor->name) + " would both be called " + quoted_name(twice->name));
  }
  // "<name>_scale" is where the safetensors formats put a scale.
  for (const PlannedTensor& tensor : planned) {
    if (tensor.tensor->kind != TensorKind::ternary) {
      continue;
    }
    const std::string scale = tensor.name + "_scale";
    if (std::ranges::binary_search(planned, scale, {}, &PlannedTensor::name)) {
      throw Error("the tensor " + quoted_name(scale) + " has the name under which the scale of " +
                  quoted_name(tensor.name) + " is stored; rename it with --map");
    }
  }
  return planned;
}

/// The metadata that belong to the model and not to its file; the packed form keeps all of them. The
/// description of the network gets the new names.
Metadata carried_metadata(const Checkpoint& source, const NameMap& names, Format to) {
  Metadata metadata;
  for (const auto& [key, value] : source.metadata()) {
    const bool ours = key.starts_with("trit.") || key.starts_with("huggingface.");
    if ((ours || to == Format::trit) && !is_own_form_key(key)) {
      metadata[key] = value;
    }
  }
  if (!names.empty()) {
    rename_rotation(metadata, [&](std::string_view name) { return names.apply(name); });
  }
  const auto graph = metadata.find("trit.model");
  if (graph != metadata.end() && !names.empty()) {
    const auto renamed =
        rename_graph(graph->second, [&](const std::string& layer) -> std::optional<std::string> {
          const auto weight = names.apply(layer + ".weight");
          const std::string_view name = weight ? without_ending(*weight, ".weight") : std::string_view();
          return name.empty() ? std::nullopt : std::optional(std::string(name));
        });
    if (renamed) {
      graph->second = *renamed;
    } else {
      metadata.erase(graph);  // a layer was left out: the rest is not a network
    }
  }
  return metadata;
}

/// Throws Error for tensors that the format cannot hold though GGUF can: blocks that are not decoded, and
/// stacks of ternary matrices.
void check_decodable(const std::vector<PlannedTensor>& tensors, const Checkpoint& source, Format to) {
  for (const auto& [name, tensor] : tensors) {
    const std::string what =
        source.path().string() + ": tensor " + quoted_name(tensor->name) + " is " + std::string(tensor->type);
    if (tensor->kind == TensorKind::blocks) {
      throw Error(what + ", which is not decoded; --to gguf copies it, and --map with null leaves it out");
    }
    if (!tensor->stack.empty() && to == Format::huggingface) {
      throw Error(what + " " + shape_text(tensor->stack) +
                  ", a stack of matrices, wanted matrices; --to trit, gguf or safetensors keeps it, and "
                  "--map with null leaves it out");
    }
  }
}

}  // namespace

void check_output(const std::filesystem::path& out, Format to) {
  if (to == Format::huggingface) {
    const AtomicFolder probe(out);
  } else {
    const AtomicFile probe(out);
  }
}

Converted convert(const Checkpoint& model, const std::filesystem::path& out, const ConvertOptions& options) {
  const auto renamed =
      options.to == Format::gguf ? with_llama_cpp_names(model, options) : with_huggingface_names(model);
  const Checkpoint& source = renamed ? *renamed : model;
  const WritePlan plan{source, plan_tensors(source, options.names),
                       carried_metadata(source, options.names, options.to), options};
  if (plan.tensors.empty()) {
    throw Error(source.path().string() + ": no tensors to write");
  }
  if (options.to != Format::gguf) {
    check_decodable(plan.tensors, source, options.to);
  }
  if (options.to == Format::huggingface && plan.metadata.contains(kRotationKey)) {
    throw Error(
        source.path().string() +
        ": the weights are rotated (keys prism.hadamard.*), and transformers would compute with them as "
        "if they were not. Formats that can hold it: trit, gguf");
  }
  check_output(out, options.to);
  Converted written{.tensors = plan.tensors.size()};
  for (const PlannedTensor& planned : plan.tensors) {
    written.ternary += planned.tensor->kind == TensorKind::ternary ? 1 : 0;
  }
  switch (options.to) {
    case Format::trit:
      write_trit(plan, out);
      return written;
    case Format::gguf:
      write_gguf(plan, out);
      return written;
    case Format::huggingface:
      write_huggingface(plan, out);
      return written;
    case Format::safetensors:
      write_values(plan, out);
      return written;
    default:
      throw Error("the format " + std::string(name_of(options.to)) +
                  " can only be read, wanted trit, hf, gguf or safetensors");
  }
}

}  // namespace trit::io

// SPDX-License-Identifier: MIT
//
// pack() as a file. With a graph it is written under a temporary name, read as trit::Model reads it, and
// takes its own name last.
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string>
#include <system_error>

#include "base/atomic_file.h"
#include "io/model_graph.h"
#include "io/safetensors_checkpoint.h"
#include "trit/error.h"
#include "trit/model.h"
#include "trit/safetensors.h"
#include "trit/torch.h"

namespace trit::nn {
namespace {

namespace fs = std::filesystem;
using Metadata = std::map<std::string, std::string, std::less<>>;
using Layers = std::map<std::string, const BitLinearImpl*, std::less<>>;

std::string dtype_of(const std::string& name, torch::ScalarType type) {
  static constexpr std::array<std::pair<torch::ScalarType, const char*>, 10> kTypes{{{torch::kFloat32, "F32"},
                                                                                     {torch::kUInt8, "U8"},
                                                                                     {torch::kInt8, "I8"},
                                                                                     {torch::kInt16, "I16"},
                                                                                     {torch::kInt32, "I32"},
                                                                                     {torch::kInt64, "I64"},
                                                                                     {torch::kUInt16, "U16"},
                                                                                     {torch::kUInt32, "U32"},
                                                                                     {torch::kUInt64, "U64"},
                                                                                     {torch::kBool, "BOOL"}}};
  for (const auto& [torch_type, dtype] : kTypes) {
    if (torch_type == type) {
      return dtype;
    }
  }
  throw Error("save_packed: " + name + " is " + c10::toString(type) +
              ", which a safetensors file cannot hold");
}

void collect(const torch::nn::Module& module, const std::string& name, Layers& layers) {
  if (const auto* layer = module.as<BitLinearImpl>()) {
    layers[name] = layer;
    return;
  }
  for (const auto& child : module.named_children()) {
    collect(*child.value(), name.empty() ? child.key() : name + "." + child.key(), layers);
  }
}

// The numbers of a graph that its tensors do not show.
void check_layers(const std::string& graph, const Layers& layers, const std::string& file) {
  check_graph(graph, file);
  for (const io::GraphLayer& node : io::graph_layers(graph)) {
    const auto found = layers.find(node.name);
    if (found == layers.end()) {
      continue;
    }
    const BitLinearOptions& options = found->second->options;
    const bool rms_norm = options.norm() == Norm::rms;
    const auto text = [](bool rms) { return rms ? "\"rms\"" : "\"none\""; };
    const std::string what = file + ": node \"" + node.name + "\"";
    if (node.token_scale_per_group) {
      throw Error(what + ": \"token_scale\" is \"group\", wanted \"token\" as the module's layer has");
    }
    if (node.rms_norm != rms_norm) {
      throw Error(what + ": \"norm\" is " + text(node.rms_norm) + ", wanted " + text(rms_norm) +
                  " as the module's layer has");
    }
    if (rms_norm && static_cast<float>(node.eps) != static_cast<float>(options.eps())) {
      throw Error(what + ": \"eps\" is " + c10::str(node.eps) + ", wanted " + c10::str(options.eps()) +
                  " as the module's layer has");
    }
  }
}

// The size of the groups of a file, which has one; 0 without group scales. A scale of 128 inputs could be written
// as two of 64, but the sums would be other ones, in their last bits.
std::int64_t group_of(const Layers& layers, const std::string& file) {
  const Layers::value_type* first = nullptr;
  for (const Layers::value_type& layer : layers) {
    const std::int64_t group = layer.second->options.group();
    if (group == 0) {
      continue;
    }
    first = first == nullptr ? &layer : first;
    if (const std::int64_t wanted = first->second->options.group(); group != wanted) {
      throw Error(file + ": layer \"" + layer.first + "\" has weight scales for groups of " +
                  std::to_string(group) + " inputs, wanted " + std::to_string(wanted) + " as \"" +
                  first->first + "\" has: a file has one size");
    }
  }
  return first == nullptr ? 0 : first->second->options.group();
}

Metadata all_metadata(const std::string& graph, const Layers& layers, const Metadata& more,
                      const std::string& file) {
  Metadata metadata{{"trit.version", "1"}, {"trit.layout", "rows-2bit"}, {"trit.scale", "multiply"}};
  if (!graph.empty()) {
    metadata["trit.model"] = graph;
  }
  if (const std::int64_t group = group_of(layers, file); group != 0) {
    metadata[std::string(io::kGroupKey)] = std::to_string(group);
  }
  for (const auto& [name, layer] : layers) {
    if (const std::int64_t in_features = layer->options.in_features(); in_features % 4 != 0) {
      metadata[io::in_features_key(name.empty() ? "weight" : name + ".weight")] = std::to_string(in_features);
    }
  }
  for (const auto& [key, value] : more) {
    if (key == "trit.crc32c" || !metadata.emplace(key, value).second) {
      throw Error(file + ": metadata \"" + key + "\" is written by save_packed itself");
    }
  }
  return metadata;
}

/// A file that is gone at the end of its scope unless it has been given another name.
struct Draft {
  explicit Draft(const fs::path& target) : path(target) {
    static std::atomic<unsigned> counter{0};
    path += ".tmp-" + std::to_string(getpid()) + "-draft" + std::to_string(counter.fetch_add(1));
  }
  ~Draft() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  fs::path path;
};

std::map<std::string, torch::Tensor> packed_for(const torch::nn::Module& module, const std::string& file) {
  try {
    return pack(module);
  } catch (const Error& error) {
    throw Error(file + ": " + error.what());
  }
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

void save_checked(const fs::path& path, std::span<const io::TensorToWrite> tensors,
                  const Metadata& metadata) {
  { const AtomicFile probe(path); }  // a folder, a device, no permission: said before any work
  const Draft draft(path);
  try {
    io::save_safetensors(draft.path, tensors, metadata);
    Model::load(draft.path, {.backend = Backend::scalar, .threads = 1});
  } catch (const Error& error) {
    std::string text = error.what();
    replace_all(text, draft.path.string(), path.string());
    throw Error(text);
  }
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    ::chmod(draft.path.c_str(), status.st_mode & 0777);
  }
  std::error_code failure;
  fs::rename(draft.path, path, failure);
  if (failure) {
    throw Error(path.string() + ": cannot be replaced: " + failure.message());
  }
  sync_folder_of(path);
}

}  // namespace

void save_packed(const torch::nn::Module& module, const std::filesystem::path& path, const std::string& graph,
                 const Metadata& metadata) {
  Layers layers;
  collect(module, "", layers);
  if (!graph.empty()) {
    check_layers(graph, layers, path.string());
  }
  const Metadata all = all_metadata(graph, layers, metadata, path.string());
  const std::map<std::string, torch::Tensor> packed = packed_for(module, path.string());
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, tensor] : packed) {  // contiguous, on the CPU
    tensors.push_back({name,
                       dtype_of(name, tensor.scalar_type()),
                       tensor.sizes().vec(),
                       {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
  }
  if (graph.empty()) {
    io::save_safetensors(path, tensors, all);
  } else {
    save_checked(path, tensors, all);
  }
}

}  // namespace trit::nn

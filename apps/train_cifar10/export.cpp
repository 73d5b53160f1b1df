// SPDX-License-Identifier: MIT
#include "train_cifar10/export.h"

#include <nlohmann/json.hpp>

#include "trit/error.h"
#include "trit/safetensors.h"

namespace trit::train {
namespace {

using nlohmann::ordered_json;

/// The graph: each node names the nodes before it that it reads.
class Graph {
 public:
  Graph() { nodes_.push_back({{"op", "input"}}); }
  /// Appends a node that reads the last one.
  Graph& then(ordered_json node) {
    node["inputs"] = {nodes_.size() - 1};
    nodes_.push_back(std::move(node));
    return *this;
  }
  const ordered_json& nodes() const { return nodes_; }

 private:
  ordered_json nodes_ = ordered_json::array();
};

ordered_json convolution(const char* name) {
  return {{"op", "conv2d"}, {"name", name}, {"stride", 1}, {"padding", 1}};
}

ordered_json linear(const char* name, LinearKind kind) {
  return {{"op", kind == LinearKind::ternary ? "bit_linear" : "linear"},
          {"name", name},
          {"norm", "rms"},
          {"eps", 1e-6}};
}

std::string model_json(LinearKind kind, const apps::ImageDataset& dataset) {
  const ordered_json relu{{"op", "relu"}}, pool{{"op", "max_pool2d"}, {"kernel", 2}, {"stride", 2}};
  Graph graph;
  graph.then(convolution("conv1")).then(relu).then(pool);
  graph.then(convolution("conv2")).then(relu).then(pool);
  graph.then({{"op", "flatten"}}).then(linear("fc1", kind)).then(relu).then(linear("fc2", kind));
  const ordered_json input{
      {"shape", {apps::ImageDataset::kChannels, apps::ImageDataset::kHeight, apps::ImageDataset::kWidth}},
      {"mean", dataset.mean},
      {"std", dataset.std},
      {"classes", dataset.classes}};
  return ordered_json{{"input", input}, {"nodes", graph.nodes()}}.dump();
}

std::string dtype_of(const torch::Tensor& tensor) {
  if (tensor.scalar_type() == torch::kUInt8) return "U8";
  if (tensor.scalar_type() == torch::kFloat32) return "F32";
  throw Error("export: a tensor is neither uint8 nor float32");
}

}  // namespace

void export_model(const std::filesystem::path& path, const SimpleBitNetCNN& network,
                  const apps::ImageDataset& dataset) {
  const std::map<std::string, torch::Tensor> packed = trit::nn::pack(*network);
  std::vector<torch::Tensor> kept;  // what the spans below point into
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, tensor] : packed) {
    kept.push_back(tensor.contiguous());
    const torch::Tensor& plain = kept.back();
    tensors.push_back({name,
                       dtype_of(plain),
                       plain.sizes().vec(),
                       {static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()}});
  }
  io::save_safetensors(path, tensors,
                       {{"trit.version", "1"},
                        {"trit.layout", "rows-2bit"},
                        {"trit.scale", "multiply"},
                        {"trit.dataset", std::string(apps::name_of(dataset.name))},
                        {"trit.model", model_json(network->linear(), dataset)}});
}

}  // namespace trit::train

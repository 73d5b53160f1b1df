// SPDX-License-Identifier: MIT
#include "train_cifar10/export.h"

#include <nlohmann/json.hpp>

#include "trit/torch.h"

namespace trit::train {
namespace {

using nlohmann::ordered_json;

/// The graph: each node lists the earlier nodes that it reads.
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

ordered_json linear(const char* name) {
  return {{"op", "bit_linear"}, {"name", name}, {"norm", "rms"}, {"eps", 1e-6}};
}

std::string model_json(const apps::ImageDataset& dataset) {
  const ordered_json relu{{"op", "relu"}}, pool{{"op", "max_pool2d"}, {"kernel", 2}, {"stride", 2}};
  Graph graph;
  graph.then(convolution("conv1")).then(relu).then(pool);
  graph.then(convolution("conv2")).then(relu).then(pool);
  graph.then({{"op", "flatten"}}).then(linear("fc1")).then(relu).then(linear("fc2"));
  const ordered_json input{
      {"shape", {apps::ImageDataset::kChannels, apps::ImageDataset::kHeight, apps::ImageDataset::kWidth}},
      {"mean", dataset.mean},
      {"std", dataset.std},
      {"classes", dataset.classes}};
  return ordered_json{{"input", input}, {"nodes", graph.nodes()}}.dump();
}

}  // namespace

void export_model(const std::filesystem::path& path, const SimpleBitNetCNN& network,
                  const apps::ImageDataset& dataset) {
  const std::string graph = model_json(dataset);
  const std::string name(apps::name_of(dataset.name));
  if (network->linear() == LinearKind::ternary) {
    trit::nn::save_packed(*network, path, graph, {{"trit.dataset", name}});
  } else {
    // bit_linear nodes with float weights are an input for `trit pack`; they do not run.
    trit::nn::save_packed(*network, path, {}, {{"trit.dataset", name}, {"trit.model", graph}});
  }
}

}  // namespace trit::train

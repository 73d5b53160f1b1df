// SPDX-License-Identifier: MIT
#include "runtime/cuda/weights.h"

#include <algorithm>
#include <map>

#include "io/checksum.h"
#include "trit/crc32c.h"

namespace trit::runtime::gpu {
namespace {

constexpr std::size_t kAlignment = 256;

// Hands out consecutive places; twice: to count the bytes, and to give the addresses.
class Places {
 public:
  explicit Places(std::byte* memory) : memory_(memory) {}
  std::byte* take(std::size_t bytes) {
    std::byte* const place = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return bytes == 0 ? nullptr : place;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

const float* upload(Places& places, const std::vector<float>& values) {
  std::byte* const place = places.take(values.size() * sizeof(float));
  if (place != nullptr) {
    check(cudaMemcpy(place, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice),
          "copying weights");
  }
  return reinterpret_cast<const float*>(place);
}

LayerWeights place_layer(Places& places, const Parameters& own, const DeviceMemory& staging) {
  LayerWeights layer;
  if (own.weight_shape.size() < 2) {
    return layer;
  }
  layer.out_features = own.weight_shape[0];
  layer.in_features = own.weight_shape[1];
  layer.weight = upload(places, own.weight);
  layer.bias = upload(places, own.bias);
  layer.norm_weight = upload(places, own.norm_weight);
  layer.scale = upload(places, own.scale);
  layer.granularity = own.scale.size() > 1 ? ScaleGranularity::row : ScaleGranularity::tensor;
  if (!own.codes.empty()) {
    std::byte* const place = places.take(cuda::weight_bytes(layer.out_features, layer.in_features));
    if (place != nullptr) {
      auto* const prepared = reinterpret_cast<std::uint8_t*>(place);
      auto* const codes = reinterpret_cast<std::uint8_t*>(staging.get());
      check(cudaMemcpy(codes, own.codes.data(), own.codes.size(), cudaMemcpyHostToDevice), "copying codes");
      cuda::prepare_weights(codes, layer.out_features, layer.in_features, prepared, nullptr);
      layer.ternary = prepared;
    }
  }
  return layer;
}

}  // namespace

Weights::Weights(const io::SafetensorsFile& file, const Network& network) {
  std::map<std::string, std::uint32_t> crcs;
  std::size_t largest_codes = 0;
  for (std::size_t i = 0; i < network.graph.nodes.size(); ++i) {
    const Node& node = network.graph.nodes[i];
    const Parameters& own = network.parameters[i];
    if (node.op != Op::bit_linear) {
      continue;
    }
    const std::string tensor = node.name + ".weight";
    const std::string what = file.path().string() + ": " + describe(network.graph, i) + ": tensor " + tensor;
    if (own.weight_shape[1] > cuda::kMaxInFeatures) {
      throw Error(what + ": " + std::to_string(own.weight_shape[1]) + " inputs, wanted at most " +
                  std::to_string(cuda::kMaxInFeatures) + ", since sums are 32-bit");
    }
    trit::check({own.weight_shape[0], own.weight_shape[1], own.codes, own.scale}, what);
    crcs[tensor] = crc32c(std::as_bytes(own.codes));
    largest_codes = std::max(largest_codes, own.codes.size());
  }
  // Last: what is wrong in a way that can be named has been named.
  io::verify_checksum(file, crcs);

  Places sizes(nullptr);
  for (const Parameters& own : network.parameters) {
    place_layer(sizes, own, nullptr);
  }
  bytes_ = sizes.used();
  memory_ = allocate_device(bytes_, "the model's weights");
  const DeviceMemory staging = allocate_device(largest_codes, "a layer's codes");
  Places places(memory_.get());
  for (const Parameters& own : network.parameters) {
    layers_.push_back(place_layer(places, own, staging));
  }
  check(cudaStreamSynchronize(nullptr), "preparing weights");
}

}  // namespace trit::runtime::gpu

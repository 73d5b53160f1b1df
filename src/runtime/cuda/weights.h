// SPDX-License-Identifier: MIT
//
// A network's weights in GPU memory: ternary ones prepared (2 bits each), everything in one allocation.
#pragma once

#include <vector>

#include "runtime/cuda/resources.h"
#include "runtime/network.h"
#include "trit/cuda.h"

namespace trit::runtime::gpu {

/// Of one node; null where it has none.
struct LayerWeights {
  const std::uint8_t* ternary = nullptr;
  const float* scale = nullptr;
  ScaleGranularity granularity = ScaleGranularity::tensor;
  const float* weight = nullptr;  // of a float layer
  const float* bias = nullptr;
  const float* norm_weight = nullptr;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
};

class Weights {
 public:
  /// Checks codes, scales and the checksum of `file`. Throws Error that names the file, node and tensor.
  Weights(const io::SafetensorsFile& file, const Network& network);

  const LayerWeights& of(std::size_t node) const { return layers_[node]; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
  DeviceMemory memory_;
  std::vector<LayerWeights> layers_;
};

}  // namespace trit::runtime::gpu

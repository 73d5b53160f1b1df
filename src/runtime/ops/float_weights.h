// SPDX-License-Identifier: MIT
//
// The weight and the bias of a float layer.
#pragma once

#include <span>
#include <vector>

namespace trit::runtime {

namespace gpu {
class Weights;
}

struct FloatWeights {
  // Until they are prepared or uploaded. The bias may be empty.
  std::vector<float> weight;  // [out, ...]
  std::vector<float> bias;    // [out]
  // On a GPU; null without CUDA or without a bias.
  const float* gpu_weight = nullptr;
  const float* gpu_bias = nullptr;

  /// Those of scale[out] * (weight * x + bias) + shift[out]. False, and nothing done, where a weight that is not
  /// zero would become zero, denormal or infinite: then another x would give NaN or an infinity.
  bool fold(std::span<const float> scale, std::span<const float> shift);
  /// Only in a build with CUDA.
  void upload(gpu::Weights& weights);
};

}  // namespace trit::runtime

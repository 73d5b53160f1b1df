// SPDX-License-Identifier: MIT
#include "runtime/ops/float_weights.h"

#include <algorithm>
#include <cmath>

#ifdef TRIT_HAVE_CUDA
#include "runtime/cuda/weights.h"
#endif

namespace trit::runtime {

bool FloatWeights::fold(std::span<const float> scale, std::span<const float> shift) {
  const std::size_t row = weight.size() / scale.size();
  std::vector<float> scaled(weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) {
    scaled[i] = weight[i] * scale[i / row];
    if (weight[i] != 0 && !std::isnormal(scaled[i])) {
      return false;
    }
  }
  std::vector<float> shifted(shift.begin(), shift.end());
  for (std::size_t n = 0; n < bias.size(); ++n) {
    // In double, rounded once.
    shifted[n] = static_cast<float>(static_cast<double>(bias[n]) * static_cast<double>(scale[n]) +
                                    static_cast<double>(shift[n]));
  }
  if (!std::ranges::all_of(shifted, [](float value) { return std::isfinite(value); })) {
    return false;
  }
  weight = std::move(scaled);
  bias = std::move(shifted);
  return true;
}

#ifdef TRIT_HAVE_CUDA
void FloatWeights::upload(gpu::Weights& weights) {
  gpu_weight = weights.floats(weight);
  gpu_bias = weights.floats(bias);
}
#endif

}  // namespace trit::runtime

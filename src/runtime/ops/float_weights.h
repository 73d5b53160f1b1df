// SPDX-License-Identifier: MIT
//
// A scale and a shift of each output channel as part of the weights in front of it.
#pragma once

#include <span>
#include <vector>

namespace trit::runtime {

/// weight [out, ...] and bias [out] (or empty: zeros) of scale[out] * (weight * x + bias) + shift[out].
/// False, and nothing done, where a weight that is not zero would become zero, denormal or infinite: then
/// another x would give NaN or an infinity.
bool scale_weights(std::span<const float> scale, std::span<const float> shift, std::vector<float>& weight,
                   std::vector<float>& bias);

}  // namespace trit::runtime

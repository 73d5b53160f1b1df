// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trit/cuda_backward.h"

namespace trit::bench {

/// An arrangement of norm_backward for bfloat16 with a norm weight, beside the default one.
struct NormVariant {
  std::string name;
  std::int64_t parts;
  std::function<void(const cuda::NormBackward&, cuda::Stream)> run;
};
std::vector<NormVariant> norm_backward_variants(std::int64_t tokens, std::int64_t in_features);

}  // namespace trit::bench

// SPDX-License-Identifier: MIT
//
// absmean per tensor in two steps, for a matrix whose rows are spread over GPUs.
#pragma once

#include <cstdint>

#include "trit/cuda.h"

namespace trit::cuda {

/// lane_sum |w| of each row of w [N, K] into sums [N].
void abs_sums(const float* w, std::int64_t out_features, std::int64_t in_features, float* sums,
              Stream stream);

/// beta of a matrix [N, K] into scale [1], from the sums [N] of all of its rows: absmean's bits.
void absmean_of_sums(const float* sums, std::int64_t out_features, std::int64_t in_features, float* scale,
                     Stream stream);

}  // namespace trit::cuda

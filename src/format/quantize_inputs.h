// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

#include "trit/quantize.h"

namespace trit {

/// What a row's inputs share.
struct RowNorm {
  float mean_square;  // ms, 0 without a norm
  float rstd;         // r, 1 without a norm
};

/// Codes of a row, or of a group of its inputs, with one scale, which is returned: the steps of
/// norm_quant_row after r.
float quantize_inputs(std::span<const float> x, Norm norm, std::span<const float> norm_weight, RowNorm row,
                      std::span<std::int8_t> q);

}  // namespace trit

// SPDX-License-Identifier: MIT
//
// y [M, N] = epilogue(q · tᵀ) from panels of prepared weights: the loops around CpuKernels::product_tile.
#pragma once

#include <cstdint>

#include "base/tasks.h"
#include "cpu/table.h"
#include "trit/linear.h"

namespace trit::generic {

/// The layout of a row that matrices are prepared in: `format` where it is there, else the row's default; also
/// the default where that has a kernel for group scales and `format` has none, since it is faster than tiles.
const PanelLayout& layout_of(const CpuKernels& kernels, PanelFormat format, std::int64_t group);

struct Product {
  const CpuKernels& kernels;
  const PanelLayout& layout;  // one of kernels.layouts
  std::int64_t out_features;
  std::int64_t in_features;
  const std::uint8_t* panels;  // ceil(N / panel_rows) panels, each panel_bytes_per_4 * ceil(K / 4) bytes
  const float* weight_scale;   // [1] or [N]; not read with group scales
  bool weight_scale_per_row;
  QuantizedRows x;
  const float* bias;  // [N] or null
  DataType y_type;
  void* y;                                 // [M, N]
  std::int64_t group = 0;                  // inputs of a group; 0 without group scales
  PanelScales group_scales = {};           // of the first panel's first group; panel follows panel
  bool group_scales_are_scalable = false;  // from kMinGroupScale to kMaxGroupScale
};
void product(Parallel& parallel, const Product& args);
/// The part of it that is `panels` x `tokens`, by product tiles.
void product_tiles(Parallel& parallel, const Product& args, Part panels, Part tokens);

/// Where the result of a token and a row lies.
std::uint8_t* output(const Product& args, std::int64_t token, std::int64_t row);

/// y of one panel and one token from its sums, acc [panel_rows], or with group scales `sums` [panel_rows].
void epilogue(const Product& args, std::int64_t panel, std::int64_t token, const std::int32_t* acc,
              const float* sums = nullptr);

}  // namespace trit::generic

// SPDX-License-Identifier: MIT
//
// Group scales of a stored matrix to those of panels (PanelScales).
#pragma once

#include <cstdint>
#include <span>

#include "cpu/table.h"
#include "trit/format.h"

namespace trit::generic {

/// float16 where that holds every scale exactly, else float32.
DataType panel_scale_type(std::span<const float> scales);
/// Whether all lie between kMinGroupScale and kMaxGroupScale.
bool are_scalable(std::span<const float> scales);

/// Bytes of a panel's scales.
inline std::int64_t panel_scale_bytes(const PanelLayout& layout, std::int64_t groups, DataType type) {
  return layout.panel_rows * groups * static_cast<std::int64_t>(size_of(type));
}
/// Those of the rows [first_row, first_row + rows), rows <= panel_rows.
void prepare_panel_scales(const TernaryView& weight, std::int64_t first_row, std::int64_t rows,
                          std::int64_t panel_rows, DataType type, std::uint8_t* out);

}  // namespace trit::generic

// SPDX-License-Identifier: MIT
//
// Rows of a ternary embedding.
#include <string>

#include "cpu/generic/rows.h"
#include "cpu/table.h"
#include "format/rotation.h"
#include "trit/error.h"
#include "trit/rotation.h"

namespace trit {

void look_up(const CpuKernels& kernels, Parallel& parallel, const TernaryView& table,
             std::span<const std::int64_t> rows, const Rotation* rotation, float* y) {
  const std::int64_t in_features = table.in_features;
  generic::check_shape("look_up", table.out_features, in_features, 1);
  const std::int64_t row_bytes = packed_row_bytes(in_features);
  const std::int64_t groups = groups_of(in_features, table.group);
  const bool per_row = table.granularity() != ScaleGranularity::tensor;
  if (std::ssize(table.codes) != table.out_features * row_bytes ||
      (table.group != 0 && !is_group_size(table.group)) ||
      std::ssize(table.scale) != (per_row ? table.out_features * groups : 1)) {
    throw Error("look_up: " + std::to_string(table.codes.size()) + " bytes of codes and " +
                std::to_string(table.scale.size()) + " scales for shape [" +
                std::to_string(table.out_features) + ", " + std::to_string(in_features) + "]");
  }
  if (rotation != nullptr) {
    check(*rotation, in_features);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= table.out_features) {
      throw Error("look_up: row " + std::to_string(rows[i]) + " at " + std::to_string(i) + ", wanted 0 to " +
                  std::to_string(table.out_features - 1));
    }
  }
  const std::int64_t group = table.group == 0 ? in_features : table.group;
  generic::for_rows(parallel, std::ssize(rows), in_features, [&](std::int64_t i) {
    const std::int64_t row = rows[static_cast<std::size_t>(i)];
    float* const to = y + i * in_features;
    generic::for_groups(in_features, group, [&](std::int64_t g, std::int64_t first, std::int64_t inputs) {
      kernels.dequantize_row(table.codes.data() + row * row_bytes + first / 4, inputs,
                             table.scale[static_cast<std::size_t>(per_row ? row * groups + g : 0)],
                             to + first);
    });
    if (rotation != nullptr) {
      kernels.walsh_hadamard_row(to, in_features, rotation->block);
      apply_signs({to, static_cast<std::size_t>(in_features)}, rotation->signs);
    }
  });
}

}  // namespace trit

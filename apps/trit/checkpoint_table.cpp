// SPDX-License-Identifier: MIT
#include "checkpoint_table.h"

#include <algorithm>
#include <limits>

namespace trit::cli {
namespace {

// The smallest and the largest scale of a matrix with groups, which has many: a few rows at a time.
std::vector<float> range_of_scales(const io::Checkpoint& checkpoint, const io::TensorInfo& tensor,
                                   std::int64_t group) {
  constexpr std::int64_t kAtOnce = 64;
  const std::int64_t groups = groups_of(tensor.shape[1], group);
  std::vector<float> scales(static_cast<std::size_t>(kAtOnce * groups));
  std::vector<float> range{std::numeric_limits<float>::infinity(), 0};
  for (std::int64_t row = 0; row < tensor.shape[0]; row += kAtOnce) {
    const std::int64_t rows = std::min(kAtOnce, tensor.shape[0] - row);
    const auto part = std::span(scales).first(static_cast<std::size_t>(rows * groups));
    checkpoint.read_group_scales(tensor, row, rows, part);
    const auto [low, high] = std::ranges::minmax(part);
    range = {std::min(range[0], low), std::max(range[1], high)};
  }
  return range;
}

}  // namespace

std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes) {
  std::vector<LayerRow> rows;
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    LayerRow row;
    row.name = tensor.name;
    row.type = tensor.type;
    const auto shape = tensor.stack.empty() ? tensor.shape : tensor.stack;
    row.shape.assign(shape.begin(), shape.end());
    row.stored_bytes = tensor.stored_bytes;
    double weights = 1;
    for (const std::int64_t size : tensor.shape) {
      weights *= static_cast<double>(size);
    }
    row.float_bytes = static_cast<std::uint64_t>(4 * weights);
    row.bits_per_weight = weights == 0 ? 0 : 8 * static_cast<double>(row.stored_bytes) / weights;
    if (tensor.kind == io::TensorKind::ternary) {
      // A GGUF file stores its scales in the blocks: knowing them requires reading the tensor.
      if (checkpoint.format() != io::Format::gguf || with_codes) {
        row.group = checkpoint.group(tensor);
        row.scale =
            row.group != 0 ? range_of_scales(checkpoint, tensor, row.group) : checkpoint.scale(tensor);
      }
      if (with_codes) {
        const io::CodeCounts counts = io::count_codes(checkpoint, tensor);
        row.codes =
            CodeCounts{static_cast<std::uint64_t>(counts.minus), static_cast<std::uint64_t>(counts.zero),
                       static_cast<std::uint64_t>(counts.plus)};
      }
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace trit::cli

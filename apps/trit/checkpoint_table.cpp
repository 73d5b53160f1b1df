// SPDX-License-Identifier: MIT
#include "checkpoint_table.h"

#include <algorithm>
#include <limits>

namespace trit::cli {
namespace {

std::uint64_t numel(std::span<const std::int64_t> shape) {
  std::uint64_t product = 1;
  for (const std::int64_t size : shape) {
    product *= static_cast<std::uint64_t>(size);
  }
  return product;
}

double bits_per_weight(std::uint64_t bytes, std::span<const std::int64_t> shape) {
  const std::uint64_t weights = numel(shape);
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

LayerRow row_of(std::string_view name, std::string_view type, std::span<const std::int64_t> shape,
                std::uint64_t stored_bytes) {
  LayerRow row;
  row.name = name;
  row.type = type;
  row.shape.assign(shape.begin(), shape.end());
  row.stored_bytes = stored_bytes;
  row.float_bytes = 4 * numel(shape);
  row.bits_per_weight = bits_per_weight(stored_bytes, shape);
  return row;
}

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

void set_scale(LayerRow& row, const io::Checkpoint& checkpoint, const io::TensorInfo& tensor) {
  row.group = checkpoint.group(tensor);
  row.scale = row.group != 0 ? range_of_scales(checkpoint, tensor, row.group) : checkpoint.scale(tensor);
}

}  // namespace

std::vector<LayerRow> describe(const io::Checkpoint& checkpoint, bool with_codes) {
  std::vector<LayerRow> rows;
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    LayerRow& row =
        rows.emplace_back(row_of(tensor.name, tensor.type, tensor.shape_in_file(), tensor.stored_bytes));
    if (tensor.kind != io::TensorKind::ternary) {
      continue;
    }
    // A GGUF file stores its scales in the blocks: knowing them requires reading the tensor.
    if (checkpoint.format() != io::Format::gguf || with_codes) {
      set_scale(row, checkpoint, tensor);
    }
    if (with_codes) {
      row.codes = io::count_codes(checkpoint, tensor);
    }
  }
  return rows;
}

std::vector<LayerRow> describe(const Model& model, const io::Checkpoint& checkpoint, bool with_codes) {
  std::vector<LayerRow> rows;
  for (const LayerInfo& layer : model.layers()) {
    LayerRow& row = rows.emplace_back();
    row.name = layer.name;
    row.type = layer.op;
    row.shape = layer.shape;
    row.stored_bytes = layer.stored_bytes;
    row.float_bytes = layer.float_bytes;
    row.scale = layer.scale;
    const io::TensorInfo* weight = checkpoint.find(layer.name + ".weight");
    row.bits_per_weight = bits_per_weight(weight == nullptr ? 0 : weight->stored_bytes, layer.shape);
    if (weight != nullptr && weight->kind == io::TensorKind::ternary) {
      set_scale(row, checkpoint, *weight);
      if (with_codes) {
        row.codes = io::count_codes(checkpoint, *weight);
        // The graph knows the number of inputs; without metadata the file has it as a multiple of 4.
        row.codes->zero = static_cast<std::int64_t>(numel(layer.shape)) - row.codes->minus - row.codes->plus;
      }
    }
  }
  return rows;
}

std::vector<LayerRow> describe(const io::SafetensorsFile& file) {
  std::vector<LayerRow> rows;
  for (const auto& [name, tensor] : file.tensors()) {
    rows.push_back(row_of(name, tensor.dtype, tensor.shape, tensor.data.size()));
  }
  return rows;
}

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
#include "layer_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "output.h"

namespace trit::cli {
namespace {

double bits_of(std::uint64_t bytes, std::uint64_t weights) {
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

std::uint64_t numel(std::span<const std::int64_t> shape) {
  std::uint64_t product = 1;
  for (const std::int64_t size : shape) {
    product *= static_cast<std::uint64_t>(size);
  }
  return product;
}

void set_scale(LayerRow& row, const PackedMatrix& matrix) {
  row.group = matrix.view.group;
  row.scale = matrix.scale;
  if (row.group != 0) {
    const auto [low, high] = std::ranges::minmax(matrix.scale);
    row.scale = {low, high};
  }
}

LayerRow row_of(const std::string& name, const PackedMatrix& matrix) {
  LayerRow row;
  row.name = name;
  row.type = "ternary";
  row.shape = matrix.shape;
  row.stored_bytes = matrix.view.codes.size() + matrix.scale_bytes;
  row.float_bytes = 4 * numel(row.shape);
  row.bits_per_weight = bits_of(row.stored_bytes, numel(row.shape));
  set_scale(row, matrix);
  return row;
}

LayerRow row_of(const std::string& name, const io::TensorView& tensor) {
  LayerRow row;
  row.name = name;
  row.type = tensor.dtype;
  row.shape = tensor.shape;
  row.stored_bytes = tensor.data.size();
  row.float_bytes = 4 * numel(row.shape);
  row.bits_per_weight = bits_of(row.stored_bytes, numel(row.shape));
  return row;
}

std::vector<LayerRow> layers_of(const io::SafetensorsFile& file, const Model& model, bool with_codes) {
  std::vector<LayerRow> rows;
  for (const LayerInfo& layer : model.layers()) {
    LayerRow row{layer.name,  layer.op, layer.shape, layer.stored_bytes, layer.float_bytes, 0,
                 layer.scale, 0,        {}};
    const std::string weight = layer.name + ".weight";
    std::uint64_t bytes = file.contains(weight) ? file.at(weight).data.size() : 0;
    if (layer.op == "bit_linear" || layer.op == "embedding") {
      const auto packed = find_packed(file, weight, layer.shape[1]);
      bytes += packed ? packed->scale_bytes : 0;
      if (packed) {
        set_scale(row, *packed);
      }
      if (with_codes && packed) {
        row.codes = count_codes(packed->view);
      }
    }
    row.bits_per_weight = bits_of(bytes, numel(layer.shape));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<LayerRow> tensors_of(const io::SafetensorsFile& file, bool with_codes) {
  io::verify_checksum(file);
  const bool stored_form = file.metadata().contains("trit.layout");
  std::vector<LayerRow> rows;
  std::set<std::string> scales;
  for (const auto& [name, tensor] : file.tensors()) {
    if (scales.contains(name)) {
      continue;  // "<name>_scale" follows its matrix and is part of that row
    }
    const auto packed = stored_form ? find_packed(file, name) : std::nullopt;
    if (!packed) {
      rows.push_back(row_of(name, tensor));
      continue;
    }
    rows.push_back(row_of(name, *packed));
    scales.insert(name + "_scale");
    if (with_codes) {
      rows.back().codes = count_codes(packed->view);
    }
  }
  return rows;
}

std::string scale_text(const LayerRow& row) {
  const std::vector<float>& scale = row.scale;
  if (scale.empty()) {
    return "";
  }
  if (scale.size() == 1) {
    return fmt::format("{:.6g}", scale[0]);
  }
  const auto [low, high] = std::minmax_element(scale.begin(), scale.end());
  return row.group != 0 ? fmt::format("{:.6g}..{:.6g} (per {} inputs)", *low, *high, row.group)
                        : fmt::format("{:.6g}..{:.6g} (per row)", *low, *high);
}

std::string codes_text(const std::optional<CodeCounts>& codes) {
  if (!codes) {
    return "";
  }
  const auto total = static_cast<double>(codes->minus_one + codes->zero + codes->plus_one);
  return fmt::format("{:.2f} / {:.2f} / {:.2f} %", 100.0 * static_cast<double>(codes->minus_one) / total,
                     100.0 * static_cast<double>(codes->zero) / total,
                     100.0 * static_cast<double>(codes->plus_one) / total);
}

}  // namespace

CodeCounts count_codes(const TernaryView& matrix) {
  std::array<std::uint64_t, 256> bytes{};
  for (const std::uint8_t byte : matrix.codes) {
    ++bytes[byte];
  }
  std::array<std::uint64_t, 4> codes{};
  for (std::size_t byte = 0; byte < bytes.size(); ++byte) {
    for (std::size_t field = 0; field < 4; ++field) {
      codes[(byte >> (2 * field)) & 3U] += bytes[byte];
    }
  }
  // The padding of a row was counted as zeros, but is no weight.
  const auto padding = static_cast<std::uint64_t>(
      matrix.out_features * (4 * packed_row_bytes(matrix.in_features) - matrix.in_features));
  return {codes[3], codes[0] - padding, codes[1]};
}

std::vector<LayerRow> describe(const io::SafetensorsFile& file, const Model* model, bool with_codes) {
  return model != nullptr ? layers_of(file, *model, with_codes) : tensors_of(file, with_codes);
}

std::string table_of(const std::vector<LayerRow>& rows) {
  std::vector<std::array<std::string, 8>> cells{
      {"name", "type", "shape", "bytes", "as float32", "bits/weight", "scale", "-1 / 0 / +1"}};
  std::uint64_t stored = 0;
  std::uint64_t as_float = 0;
  for (const LayerRow& row : rows) {
    cells.push_back({printable(row.name), row.type, shape_text(row.shape), grouped(row.stored_bytes),
                     grouped(row.float_bytes), fmt::format("{:.4g}", row.bits_per_weight), scale_text(row),
                     codes_text(row.codes)});
    stored += row.stored_bytes;
    as_float += row.float_bytes;
  }
  cells.push_back({"total", "", "", grouped(stored), grouped(as_float), "", "", ""});
  if (std::ranges::none_of(rows, [](const LayerRow& row) { return row.codes.has_value(); })) {
    cells[0][7].clear();
  }
  std::array<std::size_t, 8> widths{};
  for (const auto& line : cells) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  std::string text;
  for (const auto& line : cells) {
    std::string out;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const bool number = i >= 3 && i <= 5;
      out +=
          number ? fmt::format("{:>{}}  ", line[i], widths[i]) : fmt::format("{:<{}}  ", line[i], widths[i]);
    }
    text += out.substr(0, out.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

nlohmann::ordered_json json_of(const std::vector<LayerRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LayerRow& row : rows) {
    nlohmann::ordered_json entry{{"name", row.name},
                                 {"type", row.type},
                                 {"shape", row.shape},
                                 {"stored_bytes", row.stored_bytes},
                                 {"float_bytes", row.float_bytes},
                                 {"bits_per_weight", row.bits_per_weight}};
    if (row.group != 0) {
      entry["group"] = row.group;
      entry["scale_range"] = row.scale;
    } else if (!row.scale.empty()) {
      entry["scale"] = row.scale;
    }
    if (row.codes) {
      entry["codes"] = {
          {"minus_one", row.codes->minus_one}, {"zero", row.codes->zero}, {"plus_one", row.codes->plus_one}};
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace trit::cli

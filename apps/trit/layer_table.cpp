// SPDX-License-Identifier: MIT
#include "layer_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "output.h"

namespace trit::cli {
namespace {

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

std::string codes_text(const std::optional<io::CodeCounts>& codes) {
  if (!codes) {
    return "";
  }
  const auto total = static_cast<double>(codes->minus + codes->zero + codes->plus);
  return fmt::format("{:.2f} / {:.2f} / {:.2f} %", 100.0 * static_cast<double>(codes->minus) / total,
                     100.0 * static_cast<double>(codes->zero) / total,
                     100.0 * static_cast<double>(codes->plus) / total);
}

}  // namespace

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
          {"minus_one", row.codes->minus}, {"zero", row.codes->zero}, {"plus_one", row.codes->plus}};
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace trit::cli

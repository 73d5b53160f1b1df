// SPDX-License-Identifier: MIT
//
// The rows of `trit info`, one per layer (or tensor), as a table and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trit/io.h"

namespace trit::cli {

struct LayerRow {
  std::string name;
  std::string type;  // the op of a layer, "ternary" for a packed matrix without a graph, otherwise a dtype
  std::vector<std::int64_t> shape;  // of the weight, unpacked
  std::uint64_t stored_bytes = 0;   // all tensors of the row, in the file
  std::uint64_t float_bytes = 0;    // the same in float32
  double bits_per_weight = 0;       // of weight and scale only
  std::vector<float> scale;         // ternary rows only; with groups the smallest and the largest
  std::int64_t group = 0;           // inputs that share a scale; 0: a scale per tensor or row
  std::optional<io::CodeCounts> codes;
};

std::string table_of(const std::vector<LayerRow>& rows);
nlohmann::ordered_json json_of(const std::vector<LayerRow>& rows);

}  // namespace trit::cli

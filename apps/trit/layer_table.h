// SPDX-License-Identifier: MIT
//
// The rows of `trit info`, one per layer (or tensor), as a table and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tensors.h"
#include "trit/model.h"
#include "trit/safetensors.h"

namespace trit::cli {

/// How many weights are -1, 0 and +1.
struct CodeCounts {
  std::uint64_t minus_one = 0, zero = 0, plus_one = 0;
};

struct LayerRow {
  std::string name;
  std::string type;  // the op of a layer, "ternary" for a packed matrix without a graph, otherwise a dtype
  std::vector<std::int64_t> shape;  // of the weight, unpacked
  std::uint64_t stored_bytes = 0;   // all tensors of the row, in the file
  std::uint64_t float_bytes = 0;    // the same in float32
  double bits_per_weight = 0;       // of weight and scale only
  std::vector<float> scale;         // ternary rows only; with groups the smallest and the largest
  std::int64_t group = 0;           // inputs that share a scale; 0: a scale per tensor or row
  std::optional<CodeCounts> codes;
};

CodeCounts count_codes(const TernaryView& matrix);

/// The rows of a file: the layers of `model`, which was loaded from it, or, if `model` is null, its packed
/// matrices and other tensors.
std::vector<LayerRow> describe(const io::SafetensorsFile& file, const Model* model, bool with_codes);

std::string table_of(const std::vector<LayerRow>& rows);
nlohmann::ordered_json json_of(const std::vector<LayerRow>& rows);

}  // namespace trit::cli

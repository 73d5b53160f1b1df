// SPDX-License-Identifier: MIT
//
// What `trit info` says of a file: one row a layer (or tensor), as a table for people and as JSON.
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
  std::string type;  // a layer's op, "ternary" for a packed matrix without a graph, else a dtype
  std::vector<std::int64_t> shape;  // of the weight, unpacked
  std::uint64_t stored_bytes = 0;   // all tensors of the row, as they are in the file
  std::uint64_t float_bytes = 0;    // the same in float32
  double bits_per_weight = 0;       // weight and scale alone
  std::vector<float> scale;         // ternary rows only
  std::optional<CodeCounts> codes;
};

CodeCounts count_codes(const TernaryView& matrix);

/// The rows of a file: the layers of `model`, which was loaded from it, if it is one (else null), otherwise
/// its packed matrices and other tensors.
std::vector<LayerRow> describe(const io::SafetensorsFile& file, const Model* model, bool with_codes);

std::string table_of(const std::vector<LayerRow>& rows);
nlohmann::ordered_json json_of(const std::vector<LayerRow>& rows);

}  // namespace trit::cli

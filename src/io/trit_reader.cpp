// SPDX-License-Identifier: MIT
//
// This library's stored form in a safetensors file (format.h), and files with nothing packed or torchao's
// packing.
#include <algorithm>
#include <charconv>
#include <functional>
#include <numeric>
#include <optional>

#include "io/dtype.h"
#include "io/float_elements.h"
#include "io/rotation.h"
#include "io/safetensors_checkpoint.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

using Layout = SafetensorsCheckpoint::Layout;

/// Error unless the file's metadata say `wanted` under `key`.
void check_metadata(const SafetensorsFile& file, const std::string& key, const std::string& wanted) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end() || found->second != wanted) {
    throw Error(file.path().string() + ": metadata " + key + " is " +
                (found == file.metadata().end() ? "missing" : quoted_name(found->second)) + ", wanted \"" +
                wanted + "\"");
  }
}

/// The integer that is all of the text.
std::optional<std::int64_t> integer_of(const std::string& text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

/// in_features of a packed matrix with rows of `row_bytes`: the metadata say it, or the norm in front of it,
/// and else it is a multiple of 4.
std::int64_t in_features_of(const SafetensorsFile& file, const std::string& name, std::int64_t row_bytes) {
  const std::string key = in_features_key(name);
  if (const auto entry = file.metadata().find(key); entry != file.metadata().end()) {
    const auto value = integer_of(entry->second);
    if (!value || *value < 1 || *value > 4 * row_bytes || packed_row_bytes(*value) != row_bytes) {
      throw Error(file.path().string() + ": metadata " + quoted_name(key) + " is " +
                  quoted_name(entry->second) + ", wanted " + std::to_string(4 * row_bytes - 3) + ".." +
                  std::to_string(4 * row_bytes) + " (rows of " + std::to_string(row_bytes) + " bytes)");
    }
    return *value;
  }
  const std::string layer(without_ending(name, ".weight"));
  const auto norm = file.tensors().find(layer + ".norm.weight");
  if (!layer.empty() && norm != file.tensors().end() && norm->second.shape.size() == 1 &&
      packed_row_bytes(norm->second.shape[0]) == row_bytes) {
    return norm->second.shape[0];
  }
  return 4 * row_bytes;
}

std::int64_t checked_columns(const SafetensorsFile& file, std::string_view name, const TensorView& view) {
  if (view.shape.back() > INT64_MAX / 4) {
    throw Error(file.path().string() + ": tensor " + quoted_name(name) + ": shape " + shape_text(view.shape) +
                ", wanted at most 2^61 bytes a row");
  }
  return 4 * view.shape.back();
}

/// Rows of a matrix, or of a stack of them: [..., rows, bytes]. The header's sizes fit the file, so no overflow.
std::int64_t rows_of(const TensorView& view) {
  return std::accumulate(view.shape.begin(), view.shape.end() - 1, std::int64_t{1}, std::multiplies<>());
}

/// The scale of the packed matrix `name`, or stack of matrices, or null if it is none. With as many dimensions
/// it has groups of `group` inputs.
const TensorView* stored_scale_of(const SafetensorsFile& file, const std::string& name,
                                  const TensorView& view, std::int64_t group) {
  const auto scale = file.tensors().find(name + "_scale");
  if (view.dtype != "U8" || view.shape.size() < 2 || scale == file.tensors().end()) {
    return nullptr;
  }
  const TensorView& found = scale->second;
  const std::vector<std::int64_t> rows(view.shape.begin(), view.shape.end() - 1);
  if (found.dtype == "F32" && (found.shape == std::vector<std::int64_t>{1} || found.shape == rows)) {
    return &found;
  }
  // Any number of columns that fills the row's bytes has as many groups. No sum that could overflow.
  const std::int64_t groups = group == 0 ? 0 : (checked_columns(file, name, view) - 1) / group + 1;
  const bool halves_or_floats = found.dtype == "F16" || found.dtype == "F32";
  std::vector<std::int64_t> grouped = rows;
  grouped.push_back(groups);
  if (group == 0 || !halves_or_floats || found.shape != grouped) {
    throw Error(file.path().string() + ": tensor " + quoted_name(scale->first) + " is " + found.dtype + " " +
                shape_text(found.shape) + ", wanted F32 [1] or " + shape_text(rows) +
                (group != 0 ? ", or F16 or F32 " + shape_text(grouped) + " (metadata trit.group is " +
                                  std::to_string(group) + ")"
                 : found.shape.size() == grouped.size() ? "; a scale per group needs metadata trit.group"
                                                        : ""));
  }
  return &found;
}

struct TorchaoParts {
  std::string_view name, separator;
};
/// "fc.weight.int_data" -> "fc.weight", "."; torchao and its users join names with any of these.
TorchaoParts torchao_parts(std::string_view name) {
  const std::string_view before = without_ending(name, "int_data");
  if (before.size() < 2 || std::string_view("._:").find(before.back()) == std::string_view::npos) {
    return {};
  }
  return {before.substr(0, before.size() - 1), before.substr(before.size() - 1)};
}

const TensorView* torchao_scale_of(const SafetensorsFile& file, const TorchaoParts& parts,
                                   const TensorView& view) {
  if (parts.name.empty() || view.dtype != "I8" || view.shape.size() != 2) {
    return nullptr;
  }
  const auto scale = file.tensors().find(std::string(parts.name) + std::string(parts.separator) + "scale");
  return scale != file.tensors().end() && is_float_dtype(scale->second.dtype) && scale->second.numel() == 1
             ? &scale->second
             : nullptr;
}

}  // namespace

std::int64_t stored_group(const SafetensorsFile& file) {
  const auto entry = file.metadata().find(kGroupKey);
  if (entry == file.metadata().end()) {
    return 0;
  }
  constexpr std::int64_t kLargest = std::int64_t{1} << 30;
  const auto value = integer_of(entry->second);
  if (!value || !is_group_size(*value) || *value > kLargest) {
    throw Error(file.path().string() + ": metadata trit.group is " + quoted_name(entry->second) +
                ", wanted a multiple of 32 from 32 to 2^30");
  }
  return *value;
}

std::unique_ptr<Checkpoint> open_trit(SafetensorsFile opened) {
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(Format::trit, opened.path());
  const SafetensorsFile& file = checkpoint->add_file(std::move(opened));
  check_metadata(file, "trit.version", "1");
  check_metadata(file, "trit.layout", "rows-2bit");
  check_metadata(file, "trit.scale", "multiply");
  const std::int64_t group = stored_group(file);
  for (const auto& [name, view] : file.tensors()) {
    if (const TensorView* scale = stored_scale_of(file, name, view, group)) {
      checked_columns(file, name, view);
      checkpoint->add_ternary(name, Layout::rows_2bit, view, *scale, rows_of(view),
                              in_features_of(file, name, view.shape.back()), 0,
                              scale->shape.size() == view.shape.size() ? group : 0);
      continue;
    }
    const std::string weight(without_ending(name, "_scale"));
    const auto codes = file.tensors().find(weight);
    if (weight.empty() || codes == file.tensors().end() ||
        !stored_scale_of(file, weight, codes->second, group)) {
      checkpoint->add_elements(name, view, 0);
    }
  }
  checkpoint->finish("trit, stored form rows-2bit, version 1", file.metadata());
  return checkpoint;
}

bool has_torchao_pairs(const SafetensorsFile& file) {
  return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& entry) {
    return torchao_scale_of(file, torchao_parts(entry.first), entry.second) != nullptr;
  });
}

std::unique_ptr<Checkpoint> open_plain(SafetensorsFile opened) {
  const bool packed = has_torchao_pairs(opened);
  auto checkpoint =
      std::make_unique<SafetensorsCheckpoint>(packed ? Format::torchao : Format::safetensors, opened.path());
  const SafetensorsFile& file = checkpoint->add_file(std::move(opened));
  for (const auto& [name, view] : file.tensors()) {
    const TorchaoParts parts = torchao_parts(name);
    if (const TensorView* scale = torchao_scale_of(file, parts, view)) {
      checkpoint->add_ternary(parts.name, Layout::torchao_packed, view, *scale, view.shape[0],
                              checked_columns(file, name, view), 0);
      continue;
    }
    const std::string_view before = without_ending(name, "scale");
    const auto codes =
        before.empty() ? file.tensors().end() : file.tensors().find(std::string(before) + "int_data");
    if (codes == file.tensors().end() ||
        torchao_scale_of(file, torchao_parts(codes->first), codes->second) == nullptr) {
      checkpoint->add_elements(name, view, 0);
    }
  }
  Metadata metadata = file.metadata();
  add_rotation_file(metadata, file.path().parent_path());
  checkpoint->finish(packed ? "safetensors, torchao's packed int8" : "safetensors, nothing packed",
                     std::move(metadata));
  return checkpoint;
}

}  // namespace trit::io

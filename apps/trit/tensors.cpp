// SPDX-License-Identifier: MIT
#include "tensors.h"

#include <charconv>
#include <cstring>
#include <functional>
#include <numeric>

#include "output.h"
#include "trit/error.h"

namespace trit::cli {
namespace {

// The data of a file need not be aligned for its type: read with memcpy.
template <typename Value, typename Convert>
std::vector<float> converted(std::span<const std::byte> data, Convert convert) {
  std::vector<float> values(data.size() / sizeof(Value));
  for (std::size_t i = 0; i < values.size(); ++i) {
    Value value;
    std::memcpy(&value, data.data() + i * sizeof(Value), sizeof(Value));
    values[i] = convert(value);
  }
  return values;
}

// in_features from the metadata: a whole number that needs B bytes per row.
std::int64_t stored_in_features(const io::SafetensorsFile& file, const std::string& name,
                                std::int64_t row_bytes) {
  const std::string key = in_features_key(name);
  const auto entry = file.metadata().find(key);
  if (entry == file.metadata().end()) {
    return 4 * row_bytes;
  }
  const std::string& text = entry->second;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 4 * row_bytes ||
      packed_row_bytes(value) != row_bytes) {
    throw Error(file.path().string() + ": metadata " + printable(key) + " is \"" + printable(text) +
                "\", wanted " + std::to_string(4 * row_bytes - 3) + ".." + std::to_string(4 * row_bytes) +
                " (rows of " + std::to_string(row_bytes) + " bytes)");
  }
  return value;
}

// trit.group from the metadata.
std::int64_t stored_group(const io::SafetensorsFile& file) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 30;
  const std::string& text = file.metadata().find("trit.group")->second;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !is_group_size(value) || value > kLargest) {
    throw Error(file.path().string() + ": metadata trit.group is \"" + printable(text) +
                "\", wanted a multiple of 32 from 32 to 2^30");
  }
  return value;
}

}  // namespace

bool is_float(std::string_view dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

std::vector<float> to_floats(const io::TensorView& tensor, std::string_view name) {
  if (tensor.dtype == "F32") {
    return converted<float>(tensor.data, [](float v) { return v; });
  }
  if (tensor.dtype == "F16") {
    return converted<std::uint16_t>(tensor.data, float16_to_float);
  }
  if (tensor.dtype == "BF16") {
    return converted<std::uint16_t>(tensor.data, bfloat16_to_float);
  }
  if (tensor.dtype == "F64") {
    return converted<double>(tensor.data, [](double v) { return static_cast<float>(v); });
  }
  throw Error("tensor " + printable(name) + " is " + tensor.dtype + ", wanted F32, F16, BF16 or F64");
}

std::optional<PackedMatrix> find_packed(const io::SafetensorsFile& file, const std::string& name,
                                        std::optional<std::int64_t> in_features) {
  const auto codes = file.tensors().find(name);
  const auto scale = file.tensors().find(name + "_scale");
  if (codes == file.tensors().end() || scale == file.tensors().end() || codes->second.dtype != "U8" ||
      codes->second.shape.size() < 2) {
    return std::nullopt;
  }
  const std::vector<std::int64_t>& shape =
      codes->second.shape;  // [rows, bytes], or of a stack [..., rows, bytes]
  const std::size_t dimensions = scale->second.shape.size();
  const bool grouped = dimensions == shape.size() && file.metadata().contains("trit.group");
  const std::string& dtype = scale->second.dtype;
  if (!(grouped ? dtype == "F16" || dtype == "F32"
                : dtype == "F32" && (dimensions == 1 || dimensions + 1 == shape.size()))) {
    return std::nullopt;
  }
  const auto& data = codes->second.data;
  PackedMatrix matrix{{}, to_floats(scale->second, scale->first), scale->second.data.size()};
  matrix.view.out_features =
      std::accumulate(shape.begin(), shape.end() - 1, std::int64_t{1}, std::multiplies<>());
  matrix.view.in_features = in_features ? *in_features : stored_in_features(file, name, shape.back());
  matrix.shape = shape;
  matrix.shape.back() = matrix.view.in_features;
  matrix.view.codes = {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()};
  matrix.view.scale = matrix.scale;
  matrix.view.group = grouped ? stored_group(file) : 0;
  try {
    check(matrix.view, printable(name));
  } catch (const Error& error) {
    throw Error(file.path().string() + ": " + error.what());
  }
  return matrix;
}

std::string in_features_key(std::string_view name) { return "trit.in_features." + std::string(name); }

}  // namespace trit::cli

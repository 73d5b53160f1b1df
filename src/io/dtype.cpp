// SPDX-License-Identifier: MIT
#include "io/dtype.h"

#include <algorithm>
#include <array>

namespace trit::io {
namespace {

struct DtypeRow {
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array<DtypeRow, 15> kDtypes{{{"F64", 8},
                                            {"I64", 8},
                                            {"U64", 8},
                                            {"F32", 4},
                                            {"I32", 4},
                                            {"U32", 4},
                                            {"F16", 2},
                                            {"BF16", 2},
                                            {"I16", 2},
                                            {"U16", 2},
                                            {"F8_E4M3", 1},
                                            {"F8_E5M2", 1},
                                            {"I8", 1},
                                            {"U8", 1},
                                            {"BOOL", 1}}};

}  // namespace

std::size_t dtype_size(std::string_view dtype) {
  const auto* row =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeRow& r) { return r.name == dtype; });
  return row == kDtypes.end() ? 0 : row->bytes;
}

std::string dtype_names() {
  std::string names;
  for (const DtypeRow& row : kDtypes) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape) {
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; })) {
    return std::nullopt;
  }
  // An empty tensor is empty whatever its other dimensions multiply to.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return 0;
  }
  std::int64_t numel = 1;
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(numel, dimension, &numel)) {
      return std::nullopt;
    }
  }
  return numel;
}

std::optional<std::int64_t> checked_bytes(std::string_view dtype, std::span<const std::int64_t> shape) {
  const auto numel = checked_numel(shape);
  std::int64_t bytes = 0;
  if (!numel || __builtin_mul_overflow(*numel, static_cast<std::int64_t>(dtype_size(dtype)), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace trit::io

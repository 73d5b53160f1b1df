// SPDX-License-Identifier: MIT
#include "io/dtype.h"

#include <algorithm>
#include <array>

#include "base/names.h"

namespace trit::io {
namespace {

struct DtypeRow {
  std::string_view name;
  std::size_t bits;
};
// All of safetensors 0.8.
constexpr std::array<DtypeRow, 22> kDtypes{
    {{"F64", 64},    {"I64", 64},        {"U64", 64},        {"C64", 64},    {"F32", 32}, {"I32", 32},
     {"U32", 32},    {"F16", 16},        {"BF16", 16},       {"I16", 16},    {"U16", 16}, {"F8_E4M3", 8},
     {"F8_E5M2", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E8M0", 8}, {"I8", 8},   {"U8", 8},
     {"BOOL", 8},    {"F6_E2M3", 6},     {"F6_E3M2", 6},     {"F4", 4}}};

}  // namespace

std::size_t dtype_bits(std::string_view dtype) {
  const auto* row = std::ranges::find(kDtypes, dtype, &DtypeRow::name);
  return row == kDtypes.end() ? 0 : row->bits;
}

std::size_t dtype_size(std::string_view dtype) {
  const std::size_t bits = dtype_bits(dtype);
  return bits % 8 == 0 ? bits / 8 : 0;
}

std::int64_t bytes_of_elements(std::string_view dtype, std::int64_t elements) {
  const auto bits = static_cast<std::int64_t>(dtype_bits(dtype));
  return elements / 8 * bits + elements % 8 * bits / 8;
}

std::string dtype_names() { return joined(kDtypes, &DtypeRow::name); }

std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape) {
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; })) {
    return std::nullopt;
  }
  // Checked for an empty tensor as well: a product of some of its dimensions, or in another order, must not
  // overflow either.
  std::int64_t numel = 1;
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(numel, std::max<std::int64_t>(dimension, 1), &numel)) {
      return std::nullopt;
    }
  }
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? numel : 0;
}

std::optional<std::int64_t> checked_bytes(std::string_view dtype, std::span<const std::int64_t> shape) {
  const auto numel = checked_numel(shape);
  const auto bits = static_cast<std::int64_t>(dtype_bits(dtype));
  if (!numel || *numel % 8 * bits % 8 != 0) {
    return std::nullopt;
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(*numel / 8, bits, &bytes) ||
      __builtin_add_overflow(bytes, *numel % 8 * bits / 8, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::string size_problem(std::string_view dtype, std::span<const std::int64_t> shape) {
  const auto numel = checked_numel(shape);
  const auto bits = static_cast<std::int64_t>(dtype_bits(dtype));
  const std::string what = std::string(dtype) + " " + shape_text(shape);
  return numel && *numel % 8 * bits % 8 != 0
             ? what + " does not fill its last byte, wanted a multiple of " + (bits == 4 ? "2" : "4") +
                   " elements of " + std::to_string(bits) + " bits"
             : what + " has more than 2^63 bytes";
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return "[" + joined(shape, [](std::int64_t dimension) { return std::to_string(dimension); }) + "]";
}

}  // namespace trit::io

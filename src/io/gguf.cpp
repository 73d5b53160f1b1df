// SPDX-License-Identifier: MIT
#include "io/gguf.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace trit::io::gguf {
namespace {

// All of ggml's types (ggml.h, enum ggml_type, and the sizes of its block structures), by id.
constexpr std::array<GgmlType, 43> kTypes{{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {4, "Q4_2", 0, 0},        {5, "Q4_3", 0, 0},        {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},   {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},
    {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},         {25, "I16", 1, 2},        {26, "I32", 1, 4},        {27, "I64", 1, 8},
    {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {31, "Q4_0_4_4", 0, 0},
    {32, "Q4_0_4_8", 0, 0},   {33, "Q4_0_8_8", 0, 0},   {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},
    {36, "IQ4_NL_4_4", 0, 0}, {37, "IQ4_NL_4_8", 0, 0}, {38, "IQ4_NL_8_8", 0, 0}, {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
}};
// Of the fork of llama.cpp that Ternary-Bonsai models are published for.
constexpr std::array<GgmlType, 2> kForkTypes{{{142, "PQ2_0", 128, 34}, {143, "PTQ1_0", 128, 28}}};

}  // namespace

std::size_t value_size(std::uint32_t type) {
  constexpr std::array<std::size_t, 13> kSizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < kSizes.size() ? kSizes[type] : 0;
}

const GgmlType* find_type(std::uint32_t id) {
  if (id < kTypes.size()) {
    return &kTypes[id];
  }
  const auto* at = std::ranges::find(kForkTypes, id, &GgmlType::id);
  return at == kForkTypes.end() ? nullptr : at;
}

const GgmlType* find_type(std::string_view name) {
  if (const auto* at = std::ranges::find(kTypes, name, &GgmlType::name); at != kTypes.end()) {
    return at;
  }
  const auto* at = std::ranges::find(kForkTypes, name, &GgmlType::name);
  return at == kForkTypes.end() ? nullptr : at;
}

std::string type_text(std::uint32_t id) {
  const GgmlType* type = find_type(id);
  return type == nullptr ? "unknown type " + std::to_string(id)
                         : std::string(type->name) + " (" + std::to_string(id) + ")";
}

std::string types_text() {
  std::string text = "0 to " + std::to_string(kTypes.back().id);
  for (const GgmlType& type : kForkTypes) {
    text += ", " + type_text(type.id);
  }
  return text;
}

std::uint32_t type_of(const GgufPair& pair) {
  std::uint32_t type = 0;
  std::memcpy(&type, pair.value.data(), sizeof(type));
  return type;
}

const GgufPair* find_pair(std::span<const GgufPair> pairs, std::string_view key) {
  const auto at = std::ranges::find(pairs, key, &GgufPair::key);
  return at == pairs.end() ? nullptr : &*at;
}

std::optional<std::string_view> string_value(const GgufPair& pair) {
  if (type_of(pair) != kString) {
    return std::nullopt;
  }
  const auto text = pair.value.subspan(12);
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

namespace {

/// found(number of the pair's type); nothing for other values than numbers.
template <typename Result, typename Found>
std::optional<Result> with_number(const GgufPair& pair, const Found& found) {
  const auto read = [&]<typename Value>(Value value) {
    std::memcpy(&value, pair.value.data() + 4, sizeof(value));
    return found(value);
  };
  switch (type_of(pair)) {
    case kUint8:
      return read(std::uint8_t{});
    case kInt8:
      return read(std::int8_t{});
    case kUint16:
      return read(std::uint16_t{});
    case kInt16:
      return read(std::int16_t{});
    case kUint32:
      return read(std::uint32_t{});
    case kInt32:
      return read(std::int32_t{});
    case kUint64:
      return read(std::uint64_t{});
    case kInt64:
      return read(std::int64_t{});
    case kFloat32:
      return read(float{});
    case kFloat64:
      return read(double{});
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<std::int64_t> integer_value(const GgufPair& pair) {
  return with_number<std::int64_t>(pair, []([[maybe_unused]] auto value) -> std::optional<std::int64_t> {
    if constexpr (std::is_integral_v<decltype(value)>) {
      return std::in_range<std::int64_t>(value) ? std::optional(static_cast<std::int64_t>(value))
                                                : std::nullopt;
    }
    return std::nullopt;
  });
}

std::optional<double> number_value(const GgufPair& pair) {
  return with_number<double>(pair, []([[maybe_unused]] auto value) -> std::optional<double> {
    if constexpr (std::is_integral_v<decltype(value)>) {
      if (!std::in_range<std::int64_t>(value)) {
        return std::nullopt;
      }
    }
    return static_cast<double>(value);
  });
}

}  // namespace trit::io::gguf

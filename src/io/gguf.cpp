// SPDX-License-Identifier: MIT
#include "io/gguf.h"

#include <algorithm>

#include "io/dtype.h"

namespace trit::io::gguf {
namespace {

constexpr std::array<ElementType, 8> kElementTypes{
    {{0, "F32"}, {1, "F16"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}, {28, "F64"}, {30, "BF16"}}};

struct ForeignType {
  std::uint32_t type;
  std::string_view name;
};
constexpr std::array<ForeignType, 29> kForeignTypes{
    {{2, "Q4_0"},     {3, "Q4_1"},    {6, "Q5_0"},     {7, "Q5_1"},   {8, "Q8_0"},    {9, "Q8_1"},
     {10, "Q2_K"},    {11, "Q3_K"},   {12, "Q4_K"},    {13, "Q5_K"},  {14, "Q6_K"},   {15, "Q8_K"},
     {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
     {22, "IQ2_S"},   {23, "IQ4_XS"}, {29, "IQ1_M"},   {34, "TQ1_0"}, {35, "TQ2_0"},  {36, "I2_S"},
     {37, "TL1"},     {39, "MXFP4"},  {40, "NVFP4"},   {41, "Q1_0"},  {42, "Q2_0"}}};

}  // namespace

std::size_t value_size(std::uint32_t type) {
  constexpr std::array<std::size_t, 13> kSizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < kSizes.size() ? kSizes[type] : 0;
}

const ElementType* element_type(std::uint32_t ggml_type) {
  const auto* at = std::find_if(kElementTypes.begin(), kElementTypes.end(),
                                [&](const ElementType& type) { return type.ggml_type == ggml_type; });
  return at == kElementTypes.end() ? nullptr : at;
}

const ElementType* element_type(std::string_view dtype) {
  const auto* at = std::find_if(kElementTypes.begin(), kElementTypes.end(),
                                [&](const ElementType& type) { return type.dtype == dtype; });
  return at == kElementTypes.end() ? nullptr : at;
}

std::string type_text(std::uint32_t ggml_type) {
  if (const ElementType* element = element_type(ggml_type)) {
    return std::string(element->dtype) + " (" + std::to_string(ggml_type) + ")";
  }
  const auto* at = std::find_if(kForeignTypes.begin(), kForeignTypes.end(),
                                [&](const ForeignType& type) { return type.type == ggml_type; });
  return at == kForeignTypes.end() ? "unknown type " + std::to_string(ggml_type)
                                   : std::string(at->name) + " (" + std::to_string(ggml_type) + ")";
}

}  // namespace trit::io::gguf

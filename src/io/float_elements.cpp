// SPDX-License-Identifier: MIT
#include "io/float_elements.h"

#include <cstdint>
#include <cstring>

#include "trit/format.h"

namespace trit::io {
namespace {

template <typename Element, typename Convert>
void convert_all(std::span<const std::byte> bytes, std::span<float> values, Convert convert) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    Element element;
    std::memcpy(&element, bytes.data() + i * sizeof(Element), sizeof(Element));
    values[i] = convert(element);
  }
}

}  // namespace

bool is_float_dtype(std::string_view dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

void elements_to_floats(std::string_view dtype, std::span<const std::byte> bytes, std::span<float> values) {
  if (dtype == "F32") {
    convert_all<float>(bytes, values, [](float v) { return v; });
  } else if (dtype == "F16") {
    convert_all<std::uint16_t>(bytes, values, float16_to_float);
  } else if (dtype == "BF16") {
    convert_all<std::uint16_t>(bytes, values, bfloat16_to_float);
  } else {
    convert_all<double>(bytes, values, [](double v) { return static_cast<float>(v); });
  }
}

}  // namespace trit::io

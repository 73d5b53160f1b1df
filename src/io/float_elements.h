// SPDX-License-Identifier: MIT
//
// Elements of files as float32. The data need not be aligned for their type.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace trit::io {

/// "F64", "F32", "F16", "BF16".
bool is_float_dtype(std::string_view dtype);

/// bytes.size() == values.size() * dtype_size(dtype). F16 and BF16 exactly, F64 rounded once.
void elements_to_floats(std::string_view dtype, std::span<const std::byte> bytes, std::span<float> values);

}  // namespace trit::io

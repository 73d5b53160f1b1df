// SPDX-License-Identifier: MIT
//
// Element types of safetensors, and the size of a tensor with overflow checked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace trit::io {

/// Bytes of one element of "F64", "F32", ...; 0 for a name that safetensors does not have.
std::size_t dtype_size(std::string_view dtype);

/// "F64, F32, ...", for messages.
std::string dtype_names();

/// Product of the dimensions (1 for a scalar); nothing if one is negative or the product leaves int64.
std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape);

/// numel * dtype_size; nothing if that leaves int64.
std::optional<std::int64_t> checked_bytes(std::string_view dtype, std::span<const std::int64_t> shape);

/// "[512, 1024]".
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace trit::io

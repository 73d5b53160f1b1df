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

/// Bits of one element of "F64", "F6_E2M3", ...; 0 for a name that safetensors does not have.
std::size_t dtype_bits(std::string_view dtype);
/// The same in bytes; 0 for elements that are no whole bytes too.
std::size_t dtype_size(std::string_view dtype);
/// Bytes of so many elements, whose bits follow each other without a gap: a multiple of 8 elements, or all of
/// a tensor.
std::int64_t bytes_of_elements(std::string_view dtype, std::int64_t elements);

/// "F64, F32, ...", for messages.
std::string dtype_names();

/// Product of the dimensions (1 for a scalar); nothing if one is negative or the product of those that are
/// not 0 leaves int64.
std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape);

/// Bytes of a tensor; nothing if they leave int64, or if the last of them would be incomplete.
std::optional<std::int64_t> checked_bytes(std::string_view dtype, std::span<const std::int64_t> shape);

/// Why checked_bytes() gives nothing, for messages.
std::string size_problem(std::string_view dtype, std::span<const std::int64_t> shape);

/// "[512, 1024]".
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace trit::io

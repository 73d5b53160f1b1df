// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace trit::io {

/// Throws Error unless `name` is valid in every format and in a path: not empty, at most 1024 bytes of UTF-8
/// without control characters, and no part "..", since programs use tensor names as file names. The message
/// starts with `file`.
void check_tensor_name(std::string_view name, const std::string& file);

/// The name in quotation marks, for messages: shortened, with '?' for control characters.
std::string quoted_name(std::string_view name);

/// Whether `text` is valid UTF-8.
bool is_utf8(std::string_view text);

/// `name` without `ending`, or an empty view if it does not end with it.
std::string_view without_ending(std::string_view name, std::string_view ending);

}  // namespace trit::io

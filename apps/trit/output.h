// SPDX-License-Identifier: MIT
//
// Standard output carries results that programs read (JSON, the table of `trit info`); what people read goes
// to standard error.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

namespace trit::cli {

/// Writes to standard output. Throws trit::Error if it does not take everything (a full disk, a closed pipe).
void print(std::string_view text);
/// One JSON object and a newline to standard output. Text that is not UTF-8 (file names) gets U+FFFD.
void print_json(const nlohmann::ordered_json& object);
/// A line for people, to standard error.
void say(std::string_view line);

/// "[3, 32, 32]".
std::string shape_text(std::span<const std::int64_t> shape);
/// Text from a file, made safe for a terminal: control characters and what is not UTF-8 become '?'.
std::string printable(std::string_view text);
/// 1234567 -> "1,234,567".
std::string grouped(std::uint64_t number);

}  // namespace trit::cli

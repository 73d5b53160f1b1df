// SPDX-License-Identifier: MIT
//
// Results for programs (JSON, the table of `trit info`) go to standard output, messages for people to standard
// error (common/standard_streams.h).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "common/standard_streams.h"

namespace trit::cli {

using apps::check_standard_output;
using apps::print;
using apps::say;

/// One JSON object and a newline to standard output. Text that is not UTF-8 (file names) is replaced by U+FFFD.
void print_json(const nlohmann::ordered_json& object);

/// "[3, 32, 32]".
std::string shape_text(std::span<const std::int64_t> shape);
/// Text from a file, made safe for a terminal: control characters and what is not UTF-8 become '?'.
std::string printable(std::string_view text);
/// 1234567 -> "1,234,567".
std::string grouped(std::uint64_t number);

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
//
// JSON text of a bounded size and depth, equal keys refused, and accessors that name what was found.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace trit::runtime {

using Json = nlohmann::json;

/// Parses `text`; a parsed tree takes about 30 times the text, hence the limit of 1 MiB. `what` starts every
/// message. Throws Error: too long, deeper than 8, not JSON, not UTF-8, a key that occurs twice.
Json parse_strict_json(std::string_view text, const std::string& what);

/// Throws Error unless `object` is an object whose keys are all in `known`.
void check_keys(const Json& object, std::initializer_list<std::string_view> known, const std::string& what);

/// The member `key` of an object; Error if it is missing or of another type (or out of [least, most]).
const Json& array_member(const Json& object, const char* key, const std::string& what);
std::string string_member(const Json& object, const char* key, const std::string& what);
std::int64_t integer_member(const Json& object, const char* key, std::int64_t least, std::int64_t most,
                            const std::string& what);
/// An integer from `least` to `most`.
std::int64_t integer_value(const Json& value, std::int64_t least, std::int64_t most, const std::string& what);
/// A number that is finite as float.
float float_value(const Json& value, const std::string& what);

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// JSON text as a sequence of (path, scalar), for files of which a few keys matter: no document tree.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace trit::io {

using JsonScalar = std::variant<std::nullptr_t, bool, double, std::string>;

/// How a text is read.
struct JsonRules {
  /// If not empty: text as Python's json module writes it. NaN, Infinity and -Infinity are numbers, equal
  /// keys are an error for the top-level member of this name and inside it only, and an empty array is a null
  /// whose last key is "".
  std::string_view python_member = {};
};

/// Calls `found` for every scalar with the keys that lead to it (an array's elements have their index for a
/// key). Throws trit::Error, starting with `what`: not JSON, not UTF-8, a NUL, equal keys in one object,
/// nested deeper than 64, not an object.
void for_each_scalar(std::string_view text, const std::string& what,
                     const std::function<void(std::span<const std::string> path, JsonScalar value)>& found,
                     JsonRules rules = {});

/// NaN, Infinity and -Infinity outside of strings, which JSON lacks, as strings that begin with "\u0001", so
/// that a JSON parser takes the text; and back, in what the parser writes.
std::string quote_constants(std::string_view text);
std::string unquote_constants(std::string_view text);

/// A scalar as a message shows it, shortened.
std::string scalar_text(const JsonScalar& value);

}  // namespace trit::io

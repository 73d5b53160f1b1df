// SPDX-License-Identifier: MIT
//
// JSON text as a sequence of (path, scalar), for files of which a few keys matter: no document tree.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "io/strict_json.h"

namespace trit::io {

using JsonScalar = std::variant<std::nullptr_t, bool, double, std::string>;

/// Calls `found` for every scalar with the keys that lead to it (an array's elements have their index for a
/// key). In text as Python's json module writes it (JsonRules::python_member) an empty array is a null whose
/// last key is "". Throws trit::Error as read_json does, and for text that is not an object.
void for_each_scalar(std::string_view text, const std::string& what,
                     const std::function<void(std::span<const std::string> path, JsonScalar value)>& found,
                     JsonRules rules = {});

/// A scalar as a message shows it, shortened.
std::string scalar_text(const JsonScalar& value);

}  // namespace trit::io

// SPDX-License-Identifier: MIT
//
// Tables of values and their names, for options and messages.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "trit/error.h"

namespace trit {

template <typename Value>
struct Named {
  Value value;
  std::string_view name;
};

/// "a, b, c", where `name` gives an element's text.
template <typename Range, typename Name = std::identity>
std::string joined(const Range& range, const Name& name = {}) {
  std::string text;
  for (const auto& element : range) {
    text += (text.empty() ? "" : ", ") + std::string(std::invoke(name, element));
  }
  return text;
}

/// "unknown" for a value that is not in the table.
template <typename Value>
std::string_view name_in(std::span<const Named<Value>> table, std::type_identity_t<Value> value) {
  const auto found = std::ranges::find(table, value, &Named<Value>::value);
  return found == table.end() ? "unknown" : found->name;
}

/// Throws Error: "unknown backend 'x', wanted one of: auto, ...", where `what` is "backend".
template <typename Value>
Value value_in(std::span<const Named<Value>> table, std::string_view what, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Named<Value>::name);
  if (found == table.end()) {
    throw Error("unknown " + std::string(what) + " '" + std::string(name) +
                "', wanted one of: " + joined(table, &Named<Value>::name));
  }
  return found->value;
}

}  // namespace trit

// SPDX-License-Identifier: MIT
//
// Environment variables that choose among named values.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include "trit/error.h"

namespace trit {

/// The value of the variable; empty where it is not set.
inline std::string_view environment_variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

/// parse(value of the variable), or `unset` where it is unset or empty. An Error of `parse` names the
/// variable.
template <typename Value, typename Parse>
Value parse_environment(const char* name, Value unset, const Parse& parse) {
  const std::string_view value = environment_variable(name);
  if (value.empty()) {
    return unset;
  }
  try {
    return parse(value);
  } catch (const Error& error) {
    throw Error(std::string(name) + ": " + error.what());
  }
}

}  // namespace trit

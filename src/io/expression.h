// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace trit::io {

/// std::regex of gcc 12 reads the numbers of an expression (\12, {3}) without a look at their size, and 19
/// digits overflow: undefined behaviour before any regex_error. Expressions from files keep to this many.
constexpr std::ptrdiff_t kMostDigits = 9;

/// The longest run of digits of an expression.
inline std::ptrdiff_t longest_number(std::string_view expression) {
  std::ptrdiff_t longest = 0;
  std::ptrdiff_t run = 0;
  for (const char c : expression) {
    run = c >= '0' && c <= '9' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

}  // namespace trit::io

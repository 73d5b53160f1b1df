// SPDX-License-Identifier: MIT
//
// Reading the text of a plan: `matches("decode S2 P3 Q5", "decode S", strips, " P", row_warps, " Q",
// k_warps)`.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

namespace trit::cuda {

/// Takes `expected` off the front of `rest`; false where `rest` does not start with it.
inline bool take(std::string_view& rest, std::string_view expected) {
  const bool found = rest.starts_with(expected);
  rest.remove_prefix(found ? expected.size() : 0);
  return found;
}

/// The same with a number from 1 on.
inline bool take(std::string_view& rest, std::int32_t& number) {
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc() || number < 1) {
    return false;
  }
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return true;
}

/// Whether `text` consists of these parts: strings as they are, numbers (std::int32_t&), which are set.
template <typename... Parts>
bool matches(std::string_view text, Parts&&... parts) {
  return (take(text, parts) && ...) && text.empty();
}

}  // namespace trit::cuda

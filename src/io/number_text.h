// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstdio>
#include <string>

namespace trit::io {

/// A number in a message: "0.0371", "8e-08", "NaN".
inline std::string number_text(double value, int digits = 6) {
  if (std::isnan(value)) {
    return "NaN";
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*g", digits, value);
  return text.data();
}

}  // namespace trit::io

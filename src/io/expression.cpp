// SPDX-License-Identifier: MIT
#include "io/expression.h"

#include <algorithm>

namespace trit::io {
namespace {

constexpr std::ptrdiff_t kMostDigits = 9;

std::ptrdiff_t longest_number(std::string_view expression) {
  std::ptrdiff_t longest = 0;
  std::ptrdiff_t run = 0;
  for (const char c : expression) {
    run = c >= '0' && c <= '9' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

// Behind a backslash and in brackets, characters stand for themselves.
bool repeats_a_repetition(std::string_view expression) {
  bool in_brackets = false;
  bool repeated = false;  // what stands before
  for (std::size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    const bool begins = !in_brackets && (c == '*' || c == '+' || c == '{');
    if (begins && repeated) {
      return true;
    }
    repeated = !in_brackets && (c == '*' || c == '+' || c == '?' || c == '}');
    in_brackets = in_brackets ? c != ']' : c == '[';
    i += c == '\\' ? 1 : 0;
  }
  return false;
}

}  // namespace

std::string expression_problem(std::string_view expression) {
  if (longest_number(expression) > kMostDigits) {
    return "a number of more than " + std::to_string(kMostDigits) + " digits";
  }
  return repeats_a_repetition(expression) ? "a repetition of a repetition" : "";
}

}  // namespace trit::io

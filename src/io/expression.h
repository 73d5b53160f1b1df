// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace trit::io {

/// What makes a regular expression of a file unfit for std::regex, which checks neither: "a number of more than
/// 9 digits" or "a repetition of a repetition"; empty for others.
///
/// gcc 12 reads the numbers of an expression (\12, {3}) without a look at their size, and 19 digits overflow:
/// undefined behaviour before any regex_error. A repetition of a repetition (.**) takes exponential time, 28 s
/// for a name of 30 characters; ECMAScript and Python's re call it an error.
std::string expression_problem(std::string_view expression);

}  // namespace trit::io

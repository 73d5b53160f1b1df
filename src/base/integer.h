// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

namespace trit {

/// a / b rounded up, for a >= 0 and b > 0.
///
/// Always inlined: files that are compiled for an instruction set must not emit a copy that the linker could
/// choose for the whole library.
template <typename Integer>
[[gnu::always_inline]] constexpr Integer ceil_div(Integer a, std::type_identity_t<Integer> b) {
  return (a + b - 1) / b;
}

/// `a` rounded up to a multiple of `b`.
template <typename Integer>
[[gnu::always_inline]] constexpr Integer round_up(Integer a, std::type_identity_t<Integer> b) {
  return ceil_div(a, b) * b;
}

}  // namespace trit

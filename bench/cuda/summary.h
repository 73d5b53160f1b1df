// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>

namespace trit::bench {

/// Geometric mean and smallest of the shapes' ratios peer / ours, for each number of tokens.
void print_summary(const nlohmann::ordered_json& products);

}  // namespace trit::bench

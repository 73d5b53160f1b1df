// SPDX-License-Identifier: MIT
//
// The result of benchmark_linear as a table and as JSON, for `trit bench` and bench_linear.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "bench/lib/linear_benchmark.h"

namespace trit::bench {

/// {"limits": [one per report and backend], "results": [all]}, each with its number of threads.
nlohmann::ordered_json to_json(std::span<const LinearReport> reports);

/// A heading with the limits, then a line per result. Ends with a newline. If a backend has two layouts, `*`
/// marks the chosen one.
std::string table(const LinearReport& report);
/// Explains each column of the table in a line or two.
std::string legend();

}  // namespace trit::bench

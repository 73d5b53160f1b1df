// SPDX-License-Identifier: MIT
//
// What benchmark_linear found, for people and for programs: `trit bench` and bench/bench_linear print the
// same.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "bench/lib/linear_benchmark.h"

namespace trit::apps {

/// {"limits": [one per report and backend], "results": [all]}, each with its number of threads.
nlohmann::ordered_json to_json(std::span<const LinearReport> reports);

/// A heading with the limits, then a line per result. Ends with a newline. `*` marks the layout that is
/// chosen where there are two.
std::string table(const LinearReport& report);
/// What each column of the table is, a line or two for each.
std::string legend();

}  // namespace trit::apps

// SPDX-License-Identifier: MIT
//
// trit bench: the speed of packed layers of given shapes on this machine, beside its limits.
#pragma once

#include <cstdint>
#include <vector>

#include "common/linear_benchmark.h"
#include "trit/kernels.h"

namespace trit::cli {

struct BenchOptions {
  Backend backend = Backend::automatic;
  std::vector<apps::LinearShape> shapes{{4096, 4096}, {512, 4096}, {10, 512}};
  std::vector<std::int64_t> tokens{1, 8, 128};
  int threads = 0;    // 0: all that this process may use
  bool json = false;  // one JSON object instead of a table
};

/// Measures and prints to standard output; returns the exit code. Throws trit::Error for a shape that cannot
/// be measured, a backend that is missing, or an output that is not exact.
int run_bench(const BenchOptions& options);

}  // namespace trit::cli

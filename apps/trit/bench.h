// SPDX-License-Identifier: MIT
//
// trit bench: the speed of packed layers of given shapes on this machine, beside its limits.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bench/lib/linear_benchmark.h"
#include "trit/kernels.h"

namespace trit::cli {

struct BenchOptions {
  Backend backend = Backend::automatic;
  std::vector<apps::LinearShape> shapes = apps::usual_shapes();
  std::vector<std::int64_t> tokens = apps::usual_tokens();
  std::optional<int> threads;  // 0: all that this process may use; none: once one thread and once all
  bool quick = false;          // fewer rounds
  bool tune =
      false;  // cuda: choose among the kernels' plans and keep the choice, instead of measuring layers
  bool json = false;  // one JSON object instead of a table
};

/// What --quick measures.
std::vector<apps::LinearShape> quick_shapes();
std::vector<std::int64_t> quick_tokens();

/// Measures and prints to standard output; returns the exit code. Throws trit::Error for a shape that cannot
/// be measured, a backend that is missing, or an output that is not exact; for `tune` without the backend
/// cuda.
int run_bench(const BenchOptions& options);

}  // namespace trit::cli

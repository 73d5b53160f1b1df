// SPDX-License-Identifier: MIT
//
// trit bench: the speed of packed layers of given shapes, beside the limits of this machine.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bench/lib/linear_benchmark.h"
#include "trit/backend.h"

namespace trit::cli {

struct BenchOptions {
  Backend backend = Backend::automatic;
  std::vector<bench::LinearShape> shapes = bench::usual_shapes();
  std::vector<std::int64_t> tokens = bench::usual_tokens();
  std::int64_t group = 0;      // inputs of a group: each layer also with group scales; 0: not
  std::optional<int> threads;  // 0: all that this process may use; none: first one thread, then all
  bool quick = false;          // fewer rounds
  bool tune = false;           // cuda: instead of measuring layers, save the fastest plan for each
  bool json = false;           // one JSON object instead of a table
};

/// The shapes and numbers of tokens of --quick.
std::vector<bench::LinearShape> quick_shapes();
std::vector<std::int64_t> quick_tokens();

/// Measures and prints to standard output; returns the exit code. Throws trit::Error for a shape that cannot
/// be measured, a missing backend, a wrong output, and `tune` without the backend cuda.
int run_bench(const BenchOptions& options);

}  // namespace trit::cli

// SPDX-License-Identifier: MIT
//
// `trit bench --tune`: the autotuner (cuda/autotune/autotune.h) for many shapes, timed in CUDA graphs. What
// beats the default plan is kept for this GPU model (cuda/autotune/tuning.h). Takes a tenth of a second a
// shape and number of tokens.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench/lib/linear_benchmark.h"

namespace trit::bench {

struct TunedProduct {
  LinearShape shape;
  std::int64_t tokens;
  std::string table_plan, best_plan;  // table: the default plan; best: kept if it is another one
  std::size_t plans;                  // timed
  double table_microseconds, best_microseconds;
  /// 1 or more: what the default plan loses.
  double ratio() const { return table_microseconds / best_microseconds; }
};

struct TuneReport {
  std::string device;
  /// Empty: nothing was kept (TRIT_CUDA_TUNING=off, no cache folder, no permission).
  std::filesystem::path file;
  std::vector<TunedProduct> products;
  double mean_ratio = 1;  // geometric
  double seconds = 0;
};

/// Tunes options.shapes x options.tokens and adds them to what the file has. Products follow each other as in
/// a model (programmatic dependent launch where there is one); each that is chosen has the reference's bits.
/// Throws trit::Error where there is no GPU, or an output is wrong.
TuneReport tune_gpu(const LinearBenchmark& options, const TimingProgress& progress = {});

}  // namespace trit::bench

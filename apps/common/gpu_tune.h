// SPDX-License-Identifier: MIT
//
// The autotuner of a GPU's products: every plan that could be the fastest for a shape (cuda/plan.h) is timed
// once, the best few against the table's in turn, and what beats the table is kept for this GPU model
// (runtime/cuda/tuning.h). Takes a tenth of a second a shape and number of tokens.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench/lib/linear_benchmark.h"

namespace trit::apps {

struct TunedProduct {
  LinearShape shape;
  std::int64_t tokens;
  std::string table_plan, best_plan;  // best: kept if it is not the table's
  std::size_t plans;                  // timed
  double table_microseconds, best_microseconds;
  /// 1 or more: what the table loses.
  double ratio() const { return table_microseconds / best_microseconds; }
};

struct TuneReport {
  std::string device;
  std::filesystem::path
      file;  // empty: nothing was kept (TRIT_CUDA_TUNING=off, no cache folder, no permission)
  std::vector<TunedProduct> products;
  double mean_ratio = 1;  // geometric
  double seconds = 0;
};

/// Tunes options.shapes x options.tokens and adds them to what the file has. Products follow each other as in
/// a model (programmatic dependent launch where there is one); each that is chosen has the reference's bits.
/// Throws trit::Error where there is no GPU, or an output is wrong.
TuneReport tune_gpu(const LinearBenchmark& options, const TimingProgress& progress = {});

}  // namespace trit::apps

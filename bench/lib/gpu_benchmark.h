// SPDX-License-Identifier: MIT
//
// benchmark_linear for the backend cuda.
#pragma once

#include <string>

#include "bench/lib/linear_benchmark.h"

namespace trit::bench {

struct GpuReport {
  std::string device;
  std::string plans;  // the file of measured plans (gpu_tune.h); empty: the plans of the table
  LinearReport
      report;  // limits: the nominal int8 rate of the tensor cores at the maximum clock, 0 if unknown
};

/// As benchmark_linear, but ignores options.backends. Times are those of launches that follow each other in a
/// CUDA graph. Throws trit::Error if there is no GPU.
GpuReport benchmark_gpu(const LinearBenchmark& options, const TimingProgress& progress = {});

}  // namespace trit::bench

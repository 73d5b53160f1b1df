// SPDX-License-Identifier: MIT
//
// benchmark_linear for the backend cuda.
#pragma once

#include <string>

#include "bench/lib/linear_benchmark.h"

namespace trit::apps {

struct GpuReport {
  std::string device;
  std::string plans;    // the file of measured plans (gpu_tune.h); empty: the table's
  LinearReport report;  // limits: the tensor cores' nominal int8 rate at the highest clock, 0 where unknown
};

/// As benchmark_linear; options.backends is not read. Times are of launches in a CUDA graph, each after the
/// other. Throws trit::Error where there is no GPU.
GpuReport benchmark_gpu(const LinearBenchmark& options, const TimingProgress& progress = {});

}  // namespace trit::apps

// SPDX-License-Identifier: MIT
//
// The machine that a benchmark ran on. Every benchmark writes it beside its results.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace trit::bench {

struct Machine {
  std::string cpu;            // "AMD EPYC 9R14 96-Core Processor (family 25 model 17)", "Intel Xeon (AMX)"
  int cores = 0;              // that this process may use
  std::int64_t l2_bytes = 0;  // of one core, as cpu_caches() has it; 0 if unknown
  std::int64_t l3_bytes = 0;  // of all L3s that these CPUs have
  std::string compiler;       // of this program: "gcc 12.2.0"
  std::string date;           // now, UTC: "2026-01-31T12:00:00Z"

  /// Bytes that certainly do not fit into the last cache: that cache, at least 32 MiB.
  std::int64_t last_cache_bytes() const { return std::max<std::int64_t>(l3_bytes, std::int64_t{32} << 20); }
  /// Letters, digits and dashes, for file names: "amd-epyc-family-25-model-17-2-cores".
  std::string slug() const;
};

/// What the system reports of a CPU; empty where it reports nothing.
struct CpuInfo {
  std::string model_name, family, model;
  std::string instructions;  // the best set that the kernels use: "AMX"
};
/// The model name with family and model. A name without a number was made up by the host of a virtual
/// machine, and often the model too: then the name with the instruction set instead.
std::string cpu_name(const CpuInfo& info);

Machine this_machine();

}  // namespace trit::bench

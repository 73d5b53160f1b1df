// SPDX-License-Identifier: MIT
//
// What a figure was measured on: every benchmark writes it beside its results.
#pragma once

#include <cstdint>
#include <string>

namespace trit::apps {

struct Machine {
  std::string cpu;            // "AMD EPYC 9R14 96-Core Processor (family 25 model 17)", "Intel Xeon (AMX)"
  int cores = 0;              // that this process may use
  std::int64_t l2_bytes = 0;  // of one core, as cpu_caches() says; 0 where the system does not say
  std::int64_t l3_bytes = 0;  // of all L3s that these CPUs have
  std::string compiler;       // of this program: "gcc 12.2.0"
  std::string date;           // now, UTC: "2026-01-31T12:00:00Z"

  /// Letters, digits and dashes, for file names: "amd-epyc-family-25-model-17-2-cores".
  std::string slug() const;
};

/// What the system says of a CPU; empty strings: nothing.
struct CpuInfo {
  std::string model_name, family, model;
  std::string instructions;  // the best that the kernels use: "AMX"
};
/// The model name with family and model; for a name without a number, which a virtual machine's host made up
/// (and often the model with it), what the CPU has instead.
std::string cpu_name(const CpuInfo& info);

Machine this_machine();

}  // namespace trit::apps

// SPDX-License-Identifier: MIT
//
// What a figure was measured on: every benchmark writes it beside its results.
#pragma once

#include <cstdint>
#include <string>

namespace trit::apps {

struct Machine {
  std::string cpu;            // "AMD EPYC (family 25 model 17)"
  int cores = 0;              // that this process may use
  std::int64_t l2_bytes = 0;  // of one core; 0 where the system does not say
  std::int64_t l3_bytes = 0;
  std::string compiler;  // of this program: "gcc 12.2.0"
  std::string date;      // now, UTC: "2026-01-31T12:00:00Z"

  /// Letters, digits and dashes, for file names: "amd-epyc-family-25-model-17-2-cores".
  std::string slug() const;
};

Machine this_machine();

}  // namespace trit::apps

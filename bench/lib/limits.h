// SPDX-License-Identifier: MIT
//
// The measured int8 peak of an instruction set (memory_read.h measures the other limit). Benchmarks give
// results as a share of these limits, measured in the same run.
#pragma once

#include <optional>
#include <string_view>

#include "trit/backend.h"

namespace trit::bench {

/// A burst of the backend's int8 multiply-add instruction on independent registers, without memory accesses.
struct Int8Peak {
  std::string_view instruction;  // "vpdpbusd zmm"
  double operations;             // of one burst (a multiply-add is two), about 50 us
  void (*burst)();               // needs a machine that has the backend
};
/// Nothing for a backend without such an instruction (scalar).
std::optional<Int8Peak> int8_peak(Backend backend);

}  // namespace trit::bench

// SPDX-License-Identifier: MIT
//
// What this machine can do at best, measured: int8 multiply-adds of an instruction set (memory_read.h has the
// other limit). Benchmarks state results as a share of these, from the same run.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "trit/kernels.h"

namespace trit::apps {

/// A burst of the backend's int8 multiply-add instruction with nothing in its way: independent registers, no
/// memory.
struct Int8Peak {
  std::string_view instruction;  // "vpdpbusd zmm"
  double operations;             // of one burst (a multiply-add is two), about 50 us
  void (*burst)();               // only on a machine that has the backend
};
/// Nothing for a backend without such an instruction (scalar).
std::optional<Int8Peak> int8_peak(Backend backend);

}  // namespace trit::apps

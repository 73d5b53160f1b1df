// SPDX-License-Identifier: MIT
//
// What this machine can do at best, measured: int8 multiply-adds of an instruction set, and reading memory.
// Benchmarks state results as a share of these, from the same run.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "trit/kernels.h"
#include "trit/parallel.h"

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

/// Reads a buffer that no cache holds, each thread its own part, on huge pages where the system gives them.
class MemoryRead {
 public:
  MemoryRead(Parallel& parallel, std::size_t bytes);
  ~MemoryRead();
  MemoryRead(const MemoryRead&) = delete;
  MemoryRead& operator=(const MemoryRead&) = delete;

  /// Reads all of it once.
  void run();
  std::size_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trit::apps

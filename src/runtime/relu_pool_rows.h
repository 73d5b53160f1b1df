// SPDX-License-Identifier: MIT
//
// The loops of relu_pool.h over a block or a row, compiled once for each instruction set in a file of its
// own.
#pragma once

#include <cstdint>

#include "runtime/relu_pool.h"

namespace trit::runtime {

struct ReluPoolRows {
  void (*relu)(std::int64_t count, const float* x, float* y);
  void (*add)(std::int64_t count, const float* a, const float* b, float* y);
  /// One row of outputs; x is the first of the input rows that it reads.
  void (*max_row)(const Pooling& size, const float* x, float* y);
  void (*mean_row)(const Pooling& size, const float* x, float* y);
};

/// For a CPU that has_avx512_vnni(), has_avx2(), or any; null where this build is for other processors.
extern const ReluPoolRows* const kReluPoolAvx512;
extern const ReluPoolRows* const kReluPoolAvx2;
extern const ReluPoolRows* const kReluPoolGeneric;

}  // namespace trit::runtime

// SPDX-License-Identifier: MIT
//
// Products of many tokens: of each pair of panels one by dot products, the other one by lookups
// (docs/design/cpu-hybrid.md).
#pragma once

#include <cstdint>

#include "cpu/generic/product.h"

namespace trit::avx512_vnni::hybrid {

/// Writes y of panels [0, panels) x tokens [0, tokens), whole pairs and groups of four, and nothing where
/// product tiles are the better choice. TRIT_HYBRID: "auto" (the default), "on" (wherever it can run, for
/// tests), "off". Throws Error for other values.
DonePart product(Parallel& parallel, const generic::Product& args);

// For tests.
/// Whether this is faster than product tiles on this CPU. Measured at the first call, a few milliseconds.
bool is_faster(const CpuKernels& kernels, const PanelLayout& layout);
/// [0, pairs) x [0, groups) cut into rows x columns blocks of nearly the same size: the fastest grid for so
/// many threads, no block larger than 2^9 pairs x groups.
struct Grid {
  std::int64_t rows, columns;
};
Grid grid(std::int64_t pairs, std::int64_t groups, std::int64_t threads);

}  // namespace trit::avx512_vnni::hybrid

// SPDX-License-Identifier: MIT
//
// The product through a layout's BlockKernel: which layers take it, and how they are cut into blocks.
#pragma once

#include <cstdint>

#include "cpu/generic/product.h"
#include "cpu/generic/tasks.h"

namespace trit::generic {

/// TRIT_HYBRID: "auto" (the default), "on" (wherever it can run, for tests), "off". Throws Error for others.
enum class BlockMode : std::uint8_t { automatic, on, off };
BlockMode block_mode();

/// Whether the layout's block kernel is faster than its product tile on this CPU, at many tokens. Measured on
/// the calling thread when it is first asked for, a few milliseconds.
bool block_kernel_wins(const PanelLayout& layout);

/// What block kernels have taken off a product: y of panels [0, panels) x tokens [0, tokens).
struct BlockedPart {
  std::int64_t panels;
  std::int64_t tokens;
};
/// Writes that part of y, nothing where product tiles are the better choice.
BlockedPart product_blocks(Parallel& parallel, const Product& args);

/// [0, pairs) x [0, groups) cut into rows x columns blocks of nearly the same size.
struct BlockGrid {
  std::int64_t rows;
  std::int64_t columns;
};
/// The grid of least time for `threads` threads, no block larger than 2^9 units.
BlockGrid block_grid(std::int64_t pairs, std::int64_t groups, std::int64_t threads);

}  // namespace trit::generic

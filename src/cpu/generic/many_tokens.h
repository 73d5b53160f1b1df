// SPDX-License-Identifier: MIT
//
// The product through a layout's ManyTokensKernel.
#pragma once

#include <cstdint>

#include "base/tasks.h"
#include "cpu/generic/product.h"

namespace trit::generic {

/// How a product of many tokens is cut. A step is the kernel's token_step of tokens. Parts of the
/// steps x parts of the panels are a thread's each; in one of them come blocks of the steps, which
/// are arranged at a time, and for each block runs of the panels. A block x a run is a task. The
/// pieces of a cut differ by one unit at most.
struct ManyTokensGrid {
  std::int64_t token_parts;
  std::int64_t panel_parts;
  std::int64_t blocks;  ///< of a part of the steps
  std::int64_t runs;    ///< of a part of the panels
  std::int64_t tasks() const { return token_parts * panel_parts * blocks * runs; }
};
/// The cut whose slowest thread should be ready first. All arguments >= 1: `max_steps` are what a block may
/// have, `unit_work` are the multiply-adds of a panel x a step.
ManyTokensGrid many_tokens_grid(std::int64_t threads, std::int64_t panels, std::int64_t steps,
                                std::int64_t max_steps, std::int64_t unit_work);

/// Either may be empty, where a part has fewer panels than runs.
struct ManyTokensTask {
  Part panels;
  Part steps;
};
/// Neighbours have the same tokens as far as possible: a thread that helps its neighbour need not arrange.
ManyTokensTask many_tokens_task(const ManyTokensGrid& grid, std::int64_t panels, std::int64_t steps,
                                std::int64_t task);

/// All of y; the layout has such a kernel, and there are at least as many tokens as it wants.
void product_many_tokens(Parallel& parallel, const Product& args);

}  // namespace trit::generic

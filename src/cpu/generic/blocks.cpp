// SPDX-License-Identifier: MIT
#include "cpu/generic/blocks.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

#include "cpu/generic/aligned_buffer.h"
#include "trit/error.h"

namespace trit::generic {
namespace {

// Where the choice is automatic. What a block prepares is shared out over its tokens and its rows: at these
// numbers it is a tenth of the time.
constexpr std::int64_t kMinTokens = 128;
constexpr std::int64_t kMinOutFeatures = 1024;
constexpr std::int64_t kMinInFeatures = 512;

// Panel pairs x token groups of a block: 2 KiB of sums each, 1 MiB in all. With weights and tables that is an
// L2 and a half, but the sums pass by in order, once per block of k, and are fetched ahead.
constexpr std::int64_t kMaxUnits = 512;
// Panel pairs of a block: 6.4 KiB of prepared weights each, a quarter of an L2.
constexpr std::int64_t kMaxPairs = 40;
// What a pair (its weights) and a group (its tables) cost once per block, in units. Measured: 0.4 to 0.65 and
// 0.6 to 0.75.
constexpr double kPairCost = 0.5;
constexpr double kGroupCost = 0.7;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The sums and the scratch of a block: a thread's own, and they outlive the call.
AlignedBuffer& block_memory() {
  static thread_local AlignedBuffer memory;
  return memory;
}

bool takes_blocks(const Product& args) {
  const BlockMode mode = block_mode();
  const BlockKernel* block = args.layout.block;
  if (mode == BlockMode::off || block == nullptr ||
      padded_in_features(args.in_features) > args.layout.max_k) {
    return false;
  }
  return mode == BlockMode::on || (args.x.tokens >= kMinTokens && args.out_features >= kMinOutFeatures &&
                                   args.in_features >= kMinInFeatures && block_kernel_wins(args.layout));
}

void run_block(const Product& args, Part panels, Part tokens) {
  const PanelLayout& layout = args.layout;
  const BlockKernel& kernel = *layout.block;
  const std::int64_t padded = padded_in_features(args.in_features);
  const std::int64_t panel_bytes = padded / 4 * layout.panel_bytes_per_4;
  const std::int64_t acc_bytes = panels.size() * layout.panel_rows * tokens.size() * 4;
  const std::int64_t acc_room = ceil_div(acc_bytes, 64) * 64;
  const auto bytes = static_cast<std::size_t>(acc_room + kernel.scratch_bytes(panels.size()));
  AlignedBuffer& memory = block_memory();
  if (memory.size() < bytes) {
    memory = AlignedBuffer(bytes);
  }
  auto* const acc = reinterpret_cast<std::int32_t*>(memory.data());
  kernel.product_block({
      .panels = args.panels + panels.begin * panel_bytes,
      .panel_bytes = panel_bytes,
      .panel_count = panels.size(),
      .q = args.x.q + tokens.begin * padded,
      .q_stride = padded,
      .k = padded,
      .tokens = tokens.size(),
      .q_sum = args.x.q_sum + tokens.begin,
      .acc = acc,
      .scratch = memory.data() + acc_room,
  });
  // Along the rows of y, which are far apart.
  const std::int64_t stride = kernel.tokens * kernel.panels * layout.panel_rows;
  for (std::int64_t token = 0; token < tokens.size(); ++token) {
    const std::int64_t group = token / kernel.tokens;
    const std::int32_t* rows = acc + group * (panels.size() / kernel.panels) * stride +
                               token % kernel.tokens * kernel.panels * layout.panel_rows;
    for (std::int64_t pair = 0; pair < panels.size(); pair += kernel.panels) {
      for (std::int64_t panel = 0; panel < kernel.panels; ++panel) {
        epilogue(args, panels.begin + pair + panel, tokens.begin + token, rows + panel * layout.panel_rows);
      }
      rows += stride;
    }
  }
}

}  // namespace

BlockMode block_mode() {
  const char* text = std::getenv("TRIT_HYBRID");
  const std::string mode = text == nullptr ? "" : text;
  if (mode.empty() || mode == "auto") {
    return BlockMode::automatic;
  }
  if (mode != "on" && mode != "off") {
    throw Error("TRIT_HYBRID: unknown mode '" + mode + "', wanted one of: auto, on, off");
  }
  return mode == "on" ? BlockMode::on : BlockMode::off;
}

BlockGrid block_grid(std::int64_t pairs, std::int64_t groups, std::int64_t threads) {
  BlockGrid best{pairs, groups};
  double best_time = std::numeric_limits<double>::infinity();
  for (std::int64_t rows = ceil_div(pairs, kMaxPairs); rows <= pairs; ++rows) {
    const std::int64_t high = ceil_div(pairs, rows);
    // The fewest columns that bound a block, and up to enough for all threads.
    const std::int64_t first = ceil_div(groups, std::max<std::int64_t>(1, kMaxUnits / high));
    const std::int64_t last = std::min(groups, std::max(first + 2, ceil_div(threads, rows)));
    for (std::int64_t columns = std::min(first, groups); columns <= last; ++columns) {
      const std::int64_t wide = ceil_div(groups, columns);
      const double block = static_cast<double>(high * wide) + kPairCost * static_cast<double>(high) +
                           kGroupCost * static_cast<double>(wide);
      const double time = block * static_cast<double>(ceil_div(rows * columns, threads));
      if (time < best_time) {
        best_time = time;
        best = {rows, columns};
      }
    }
  }
  return best;
}

BlockedPart product_blocks(Parallel& parallel, const Product& args) {
  if (!takes_blocks(args)) {
    return {0, 0};
  }
  const BlockKernel& kernel = *args.layout.block;
  const std::int64_t pairs = ceil_div(args.out_features, args.layout.panel_rows) / kernel.panels;
  const std::int64_t groups = args.x.tokens / kernel.tokens;
  if (pairs == 0 || groups == 0) {
    return {0, 0};
  }
  const BlockGrid grid = block_grid(pairs, groups, parallel.threads());
  run_tasks(parallel, grid.rows * grid.columns, [&](std::int64_t task) {
    const Part pair = part_of(pairs, grid.rows, task / grid.columns);
    const Part group = part_of(groups, grid.columns, task % grid.columns);
    run_block(args, {pair.begin * kernel.panels, pair.end * kernel.panels},
              {group.begin * kernel.tokens, group.end * kernel.tokens});
  });
  return {pairs * kernel.panels, groups * kernel.tokens};
}

}  // namespace trit::generic

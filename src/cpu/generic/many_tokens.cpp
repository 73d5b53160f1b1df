// SPDX-License-Identifier: MIT
//
// Tasks are blocks of tokens x runs of panels. A thread arranges the q of its block itself, in memory of its
// own: what other cores have arranged it would fetch from their caches, a tile at a time and each time in
// full latency. In a task the kernel goes panel by panel, each read from memory once per block of tokens and
// from L2 after that.
#include "cpu/generic/many_tokens.h"

#include <algorithm>
#include <atomic>

#include "base/buffer.h"
#include "base/integer.h"
#include "base/tasks.h"
#include "cpu/generic/group_sums.h"

namespace trit::generic {
namespace {

// q of a block of tokens: half of the L2 that every CPU with such a kernel has; for several threads a
// quarter, since two of them may be on one core.
constexpr std::int64_t kBlockBytes = 1 << 20;
constexpr std::int64_t kSharedBlockBytes = 512 << 10;
// Multiply-adds per task, 4 us or more at 1024 a cycle.
constexpr std::int64_t kWorkPerTask = 1 << 24;

// y from here on, half of an L2, would hardly be there when it is read, and each of its lines would be read
// from memory before it is written. One thread, 128 tokens, time without over time with it: 1.10 (4096 x
// 4096, of which reading y from memory takes back a third), 1.13 to 1.15 (2560 x 2560).
constexpr std::int64_t kMinNonTemporalBytes = 1 << 20;

class ManyTokensProduct {
 public:
  explicit ManyTokensProduct(Parallel& parallel, const Product& args)
      : parallel_(parallel),
        args_(args),
        kernel_(*args.layout.many_tokens),
        padded_(padded_in_features(args.in_features)),
        steps_(ceil_div(args.x.tokens, kernel_.token_step)),
        panels_(ceil_div(args.out_features, args.layout.panel_rows)),
        panel_bytes_(padded_ / 4 * args.layout.panel_bytes_per_4),
        grid_(many_tokens_grid(parallel.threads(), panels_, steps_, max_steps(),
                               kernel_.token_step * args.layout.panel_rows * padded_)) {}

  void run() {
    static std::atomic<std::uint64_t> calls{0};
    call_ = calls.fetch_add(1, std::memory_order_relaxed) + 1;
    run_tasks(parallel_, grid_.tasks(), [this](std::int64_t task) { run_task(task); });
  }

 private:
  /// A thread's arranged block. It outlives the call: pages that are new to the
  /// process would cost more than the arrangement.
  struct Arranged {
    AlignedBuffer buffer;
    std::uint64_t call = 0;
    std::int64_t first_token = 0;
  };

  std::int64_t max_steps() const {
    const std::int64_t bytes = parallel_.threads() == 1 ? kBlockBytes : kSharedBlockBytes;
    return std::max<std::int64_t>(1, bytes / kernel_.arranged_bytes(kernel_.token_step, padded_));
  }

  void run_task(std::int64_t task) const {
    const ManyTokensTask part = many_tokens_task(grid_, panels_, steps_, task);
    if (part.panels.size() == 0) {
      return;
    }
    const Part tokens{part.steps.begin * kernel_.token_step,
                      std::min(args_.x.tokens, part.steps.end * kernel_.token_step)};
    multiply(part.panels, tokens, arranged(tokens));
  }

  const std::int8_t* arranged(Part tokens) const {
    static thread_local Arranged own;
    if (own.call != call_ || own.first_token != tokens.begin) {
      const auto bytes = static_cast<std::size_t>(kernel_.arranged_bytes(tokens.size(), padded_));
      if (own.buffer.size() < bytes) {
        own.buffer = AlignedBuffer(bytes);
      }
      kernel_.arrange(args_.x.q + tokens.begin * padded_, padded_, tokens.size(), padded_,
                      reinterpret_cast<std::int8_t*>(own.buffer.data()));
      own.call = call_;
      own.first_token = tokens.begin;
    }
    return reinterpret_cast<const std::int8_t*>(own.buffer.data());
  }

  void multiply(Part panels, Part tokens, const std::int8_t* arranged) const {
    const std::int64_t row = panels.begin * args_.layout.panel_rows;
    const auto y_bytes = static_cast<std::int64_t>(size_of(args_.y_type));
    kernel_.product({
        .panels = args_.panels + panels.begin * panel_bytes_,
        .panel_bytes = panel_bytes_,
        .rows = std::min(args_.out_features, panels.end * args_.layout.panel_rows) - row,
        .arranged = arranged,
        .k = padded_,
        .tokens = tokens.size(),
        .token_scale = args_.x.scale + tokens.begin,
        .weight_scale = args_.weight_scale_per_row ? args_.weight_scale + row : args_.weight_scale,
        .weight_scale_per_row = args_.weight_scale_per_row,
        .bias = args_.bias == nullptr ? nullptr : args_.bias + row,
        .y_type = args_.y_type,
        .y_bytes = y_bytes,
        .y = output(args_, tokens.begin, row),
        .y_stride = args_.out_features * y_bytes,
        .non_temporal = args_.x.tokens * args_.out_features * y_bytes >= kMinNonTemporalBytes,
        .group = args_.group,
        .groups = groups_of(args_.in_features, args_.group),
        .group_scales = args_.group == 0 ? PanelScales{} : scales_of(args_, panels.begin, 0),
    });
  }

  Parallel& parallel_;
  const Product& args_;
  const ManyTokensKernel& kernel_;
  std::int64_t padded_;
  std::int64_t steps_;
  std::int64_t panels_;
  std::int64_t panel_bytes_;
  ManyTokensGrid grid_;
  std::uint64_t call_ = 0;
};

}  // namespace

ManyTokensGrid many_tokens_grid(std::int64_t threads, std::int64_t panels, std::int64_t steps,
                                std::int64_t max_steps, std::int64_t unit_work) {
  // Times in units of a step x a panel: to arrange a step, and what a panel takes besides its steps.
  constexpr double kArrangeTime = 2.0;
  constexpr double kPanelTime = 0.15;
  // Threads are not equally fast, and tasks of a few microseconds pay for their beginnings and ends. 16
  // threads, six products of 128 and 512 tokens, time of 4 tasks a thread over that of 8: 0.97 to 1.06,
  // mean 1.02; of 16 over 8: 0.98 to 1.04.
  constexpr std::int64_t kTasksOfThread = 8;
  // Not more threads than there is work for.
  const std::int64_t team = std::clamp<std::int64_t>(panels * steps * unit_work / kWorkPerTask, 1, threads);
  ManyTokensGrid best{};
  double least = 0;
  for (std::int64_t token_parts = 1; token_parts <= std::min(steps, team); ++token_parts) {
    const std::int64_t panel_parts = std::min(panels, team / token_parts);
    const std::int64_t max_panels = ceil_div(panels, panel_parts);
    const std::int64_t max_steps_of_part = ceil_div(steps, token_parts);
    const std::int64_t blocks = ceil_div(max_steps_of_part, max_steps);
    const double time = static_cast<double>(max_steps_of_part * max_panels) +
                        kArrangeTime * static_cast<double>(max_steps_of_part) +
                        kPanelTime * static_cast<double>(blocks * max_panels);
    if (token_parts > 1 && time >= least) {
      continue;
    }
    least = time;
    const std::int64_t tasks =
        threads == 1 ? 1
                     : std::min(kTasksOfThread, max_steps_of_part * max_panels * unit_work / kWorkPerTask);
    best = {token_parts, panel_parts, blocks, std::clamp<std::int64_t>(tasks / blocks, 1, max_panels)};
  }
  return best;
}

ManyTokensTask many_tokens_task(const ManyTokensGrid& grid, std::int64_t panels, std::int64_t steps,
                                std::int64_t task) {
  const std::int64_t run = task % grid.runs;
  const std::int64_t block = task / grid.runs % grid.blocks;
  const std::int64_t panel_part = task / (grid.runs * grid.blocks) % grid.panel_parts;
  const std::int64_t token_part = task / (grid.runs * grid.blocks * grid.panel_parts);
  return {part_of(part_of(panels, grid.panel_parts, panel_part), grid.runs, run),
          part_of(part_of(steps, grid.token_parts, token_part), grid.blocks, block)};
}

void product_many_tokens(Parallel& parallel, const Product& args) { ManyTokensProduct(parallel, args).run(); }

}  // namespace trit::generic

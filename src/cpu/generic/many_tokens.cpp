// SPDX-License-Identifier: MIT
//
// q is arranged by all threads for all of them. Then, outermost first:
//   task          a run of panels x a run of tokens
//   token block   as many tokens as keep their q in half of an L2 cache
//   the kernel    panel by panel, each read from memory once per token block and from L2 after that
#include "cpu/generic/many_tokens.h"

#include <algorithm>

#include "cpu/generic/aligned_buffer.h"
#include "cpu/generic/tasks.h"

namespace trit::generic {
namespace {

// q of a token block: half of the L2 that every CPU with such a kernel has.
constexpr std::int64_t kTokenBlockBytes = 1 << 20;
// Multiply-adds per task, 4 us or more at 1024 a cycle; and bytes per task of the arrangement, 3 us.
constexpr std::int64_t kWorkPerTask = 1 << 24;
constexpr std::int64_t kBytesPerTask = 1 << 16;

// y from here on, half of an L2, would hardly be there when it is read, and each of its lines would be read
// from memory before it is written. One thread, 128 tokens, time without over time with it: 1.10 (4096 x
// 4096, of which reading y from memory takes back a third), 1.13 to 1.15 (2560 x 2560).
constexpr std::int64_t kStreamedBytes = 1 << 20;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

class ManyTokensProduct {
 public:
  explicit ManyTokensProduct(Parallel& parallel, const Product& args)
      : parallel_(parallel),
        args_(args),
        kernel_(*args.layout.many_tokens),
        padded_(padded_in_features(args.in_features)),
        step_bytes_(kernel_.arranged_bytes(kernel_.token_step, padded_)) {}

  void run() {
    // One token block for each thread: what has just been arranged is in L2 when it is multiplied.
    const std::int64_t turn = most_steps() * parallel_.threads() * kernel_.token_step;
    for (std::int64_t first = 0; first < args_.x.tokens; first += turn) {
      const Part tokens{first, std::min(first + turn, args_.x.tokens)};
      arrange(tokens);
      multiply(tokens);
    }
  }

 private:
  // It outlives the call: pages that are new to the process would cost more than the arrangement.
  static AlignedBuffer& memory() {
    static thread_local AlignedBuffer buffer;
    return buffer;
  }

  // Steps of tokens in a token block.
  std::int64_t most_steps() const { return std::max<std::int64_t>(1, kTokenBlockBytes / step_bytes_); }
  std::int64_t steps_of(Part tokens) const { return ceil_div(tokens.size(), kernel_.token_step); }
  // Part `index` of `parts`, cut at multiples of token_step from the first token on.
  Part tokens_of(Part tokens, std::int64_t parts, std::int64_t index) const {
    const Part steps = part_of(steps_of(tokens), parts, index);
    return {tokens.begin + steps.begin * kernel_.token_step,
            std::min(tokens.end, tokens.begin + steps.end * kernel_.token_step)};
  }
  std::int8_t* arranged_of(Part turn, std::int64_t token) const {
    return arranged_ + (token - turn.begin) / kernel_.token_step * step_bytes_;
  }

  void arrange(Part turn) {
    const std::int64_t bytes = kernel_.arranged_bytes(turn.size(), padded_);
    if (memory().size() < static_cast<std::size_t>(bytes)) {
      memory() = AlignedBuffer(static_cast<std::size_t>(bytes));
    }
    arranged_ = reinterpret_cast<std::int8_t*>(memory().data());
    const std::int64_t tasks = task_count(parallel_, steps_of(turn), bytes, kBytesPerTask);
    run_tasks(parallel_, tasks, [&](std::int64_t task) {
      const Part tokens = tokens_of(turn, tasks, task);
      kernel_.arrange(args_.x.q + tokens.begin * padded_, padded_, tokens.size(), padded_,
                      arranged_of(turn, tokens.begin));
    });
  }

  void multiply(Part turn) const {
    const std::int64_t panels = ceil_div(args_.out_features, args_.layout.panel_rows);
    const std::int64_t steps = steps_of(turn);
    const std::int64_t work = turn.size() * args_.out_features * args_.in_features;
    const std::int64_t wanted = task_count(parallel_, panels * steps, work, kWorkPerTask);
    const std::int64_t panel_parts = std::min(panels, wanted);
    const std::int64_t token_parts = std::min(steps, ceil_div(wanted, panel_parts));
    run_tasks(parallel_, panel_parts * token_parts, [&](std::int64_t task) {
      const Part panel = part_of(panels, panel_parts, task / token_parts);
      const Part tokens = tokens_of(turn, token_parts, task % token_parts);
      const std::int64_t blocks = ceil_div(steps_of(tokens), most_steps());
      for (std::int64_t block = 0; block < blocks; ++block) {
        run_block(turn, panel, tokens_of(tokens, blocks, block));
      }
    });
  }

  void run_block(Part turn, Part panels, Part tokens) const {
    const std::int64_t row = panels.begin * args_.layout.panel_rows;
    const auto y_bytes = static_cast<std::int64_t>(size_of(args_.y_type));
    const std::int64_t panel_bytes = padded_ / 4 * args_.layout.panel_bytes_per_4;
    kernel_.product({
        .panels = args_.panels + panels.begin * panel_bytes,
        .panel_bytes = panel_bytes,
        .rows = std::min(args_.out_features, panels.end * args_.layout.panel_rows) - row,
        .arranged = arranged_of(turn, tokens.begin),
        .k = padded_,
        .tokens = tokens.size(),
        .row_scale = args_.x.scale + tokens.begin,
        .scale = args_.scale + (args_.scale_per_row ? row : 0),
        .scale_per_row = args_.scale_per_row,
        .bias = args_.bias == nullptr ? nullptr : args_.bias + row,
        .y_type = args_.y_type,
        .y_bytes = y_bytes,
        .y = output(args_, tokens.begin, row),
        .y_stride = args_.out_features * y_bytes,
        .y_streams = args_.x.tokens * args_.out_features * y_bytes >= kStreamedBytes,
    });
  }

  Parallel& parallel_;
  const Product& args_;
  const ManyTokensKernel& kernel_;
  std::int64_t padded_;
  std::int64_t step_bytes_;  // of token_step tokens
  std::int8_t* arranged_ = nullptr;
};

}  // namespace

void product_many_tokens(Parallel& parallel, const Product& args) { ManyTokensProduct(parallel, args).run(); }

}  // namespace trit::generic

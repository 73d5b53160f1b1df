// SPDX-License-Identifier: MIT
//
// How a product of many tokens is cut into tasks.
#include "cpu/generic/many_tokens.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "cpu/support.h"

namespace trit {
namespace {

using generic::ManyTokensGrid;

// Any layer's: K = 4096 with steps of 32 tokens and panels of 64 rows.
constexpr std::int64_t kUnitWork = std::int64_t{32} * 64 * 4096;

ManyTokensGrid grid_of(std::int64_t threads, std::int64_t panels, std::int64_t steps) {
  return generic::many_tokens_grid(threads, panels, steps, 4, kUnitWork);
}

// Every panel x step is in one task, and no task has more steps than can be arranged.
TEST(ManyTokens, EachUnitOnce) {
  for (const std::int64_t unit_work : {std::int64_t{1}, std::int64_t{1} << 20, kUnitWork, kUnitWork * 16}) {
    for (const std::int64_t threads : {1, 2, 3, 7, 16, 64}) {
      for (const std::int64_t panels : {1, 2, 5, 17, 64}) {
        for (const std::int64_t steps : {1, 2, 4, 5, 33}) {
          for (const std::int64_t max_steps : {1, 3, 16}) {
            SCOPED_TRACE(::testing::Message()
                         << threads << " threads, " << panels << " panels, " << steps << " steps");
            const ManyTokensGrid grid =
                generic::many_tokens_grid(threads, panels, steps, max_steps, unit_work);
            std::vector<int> found(static_cast<std::size_t>(panels * steps));
            for (std::int64_t task = 0; task < grid.tasks(); ++task) {
              const generic::ManyTokensTask part = generic::many_tokens_task(grid, panels, steps, task);
              ASSERT_GE(part.steps.begin, 0);
              ASSERT_LE(part.steps.end, steps);
              ASSERT_GE(part.panels.begin, 0);
              ASSERT_LE(part.panels.end, panels);
              ASSERT_LE(part.steps.size(), max_steps);
              for (std::int64_t panel = part.panels.begin; panel < part.panels.end; ++panel) {
                for (std::int64_t step = part.steps.begin; step < part.steps.end; ++step) {
                  ++found[static_cast<std::size_t>(panel * steps + step)];
                }
              }
            }
            ASSERT_EQ(found, std::vector<int>(found.size(), 1));
          }
        }
      }
    }
  }
}

TEST(ManyTokens, OneThreadGoesThroughAllPanels) {
  const ManyTokensGrid grid = grid_of(1, 64, 16);
  EXPECT_EQ(grid.panel_parts * grid.runs, 1);
  EXPECT_EQ(grid.token_parts * grid.blocks, 4);
}

TEST(ManyTokens, EachThreadHasWork) {
  for (const std::int64_t threads : {2, 4, 8, 16}) {
    for (const std::int64_t steps : {1, 4, 16, 64}) {
      const ManyTokensGrid grid = grid_of(threads, 64, steps);
      EXPECT_EQ(grid.token_parts * grid.panel_parts, threads) << steps << " steps";
    }
  }
}

// A thread's tasks have one block after the other: it arranges each once.
TEST(ManyTokens, ThreadArrangesItsBlocksOnce) {
  const std::int64_t threads = 16;
  const std::int64_t steps = 64;
  const ManyTokensGrid grid = grid_of(threads, 64, steps);
  const std::int64_t tasks = grid.tasks() / threads;
  ASSERT_EQ(tasks * threads, grid.tasks());
  for (std::int64_t thread = 0; thread < threads; ++thread) {
    std::set<std::int64_t> arranged;
    std::int64_t last = -1;
    std::int64_t times = 0;
    for (std::int64_t task = thread * tasks; task < (thread + 1) * tasks; ++task) {
      const std::int64_t first = generic::many_tokens_task(grid, 64, steps, task).steps.begin;
      times += first == last ? 0 : 1;
      last = first;
      arranged.insert(first);
    }
    EXPECT_EQ(times, std::ssize(arranged));
    EXPECT_LT(times, steps / 4) << "a part of the tokens";
  }
}

TEST(ManyTokens, LittleWorkIsForFewThreads) {
  EXPECT_EQ(generic::many_tokens_grid(16, 8, 1, 4, 1 << 10).tasks(), 1);
  EXPECT_LE(generic::many_tokens_grid(16, 8, 1, 4, 1 << 22).tasks(), 2);
}

}  // namespace
}  // namespace trit

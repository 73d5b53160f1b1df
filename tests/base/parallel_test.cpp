// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

#include "base/tasks.h"
#include "child_process.h"
#include "cpu/support.h"
#include "trit/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace trit::test {
namespace {

TEST(Parallel, RunsEachTaskOnce) {
  for (const int threads : {1, 2, 5}) {
    const auto parallel = make_parallel(threads);
    EXPECT_EQ(parallel->threads(), threads);
    for (const int tasks : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(tasks));
      parallel->run(tasks, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
      for (const std::atomic<int>& count : calls) {
        EXPECT_EQ(count, 1);
      }
    }
  }
}

TEST(Parallel, ThreadsOfThisProcess) {
  EXPECT_GE(make_parallel()->threads(), 1);
  EXPECT_THROW(static_cast<void>(make_parallel(-1)), Error);
}

TEST(Parallel, ManyCallersAtOnce) {
  const auto parallel = make_parallel(2);
  std::atomic<int> calls = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        parallel->run(10, [&](std::int64_t) { ++calls; });
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(calls, 4 * 50 * 10);
}

#if defined(__x86_64__)
TEST(Parallel, TasksStartInTheDefaultEnvironment) {
  for (const int threads : {1, 3}) {
    const auto parallel = make_parallel(threads);
    _mm_setcsr(0x9fc0);  // flush to zero, denormals are zero
    std::atomic<int> wrong = 0;
    parallel->run(20, [&](std::int64_t) { wrong += _mm_getcsr() == 0x1f80U ? 0 : 1; });
    const unsigned after = _mm_getcsr();
    _mm_setcsr(0x1f80);
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(after, 0x9fc0U);
  }
}
#endif

TEST(Tasks, PartsCoverTheRangeEvenly) {
  for (const std::int64_t total : {0, 1, 7, 100}) {
    for (const std::int64_t parts : {1, 2, 3, 7}) {
      std::int64_t at = 0;
      for (std::int64_t i = 0; i < parts; ++i) {
        const Part part = part_of(total, parts, i);
        EXPECT_EQ(part.begin, at);
        EXPECT_GE(part.size(), total / parts);
        EXPECT_LE(part.size(), total / parts + 1);
        at = part.end;
      }
      EXPECT_EQ(at, total);
    }
  }
}

TEST(Tasks, Count) {
  const auto one = make_parallel(1);
  const auto four = make_parallel(4);
  EXPECT_EQ(task_count(*one, 100, 1 << 30, 1), 1);
  EXPECT_EQ(task_count(*four, 100, 1 << 30, 1), 16);
  EXPECT_EQ(task_count(*four, 3, 1 << 30, 1), 3);
  EXPECT_EQ(task_count(*four, 100, 10, 100), 1);  // too little to share
  EXPECT_EQ(task_count(*four, 100, 250, 100), 2);
}

bool runs_each_once(Parallel& parallel) {
  std::vector<std::atomic<int>> calls(100);
  parallel.run(100, [&](std::int64_t i) { ++calls[static_cast<std::size_t>(i)]; });
  return std::all_of(calls.begin(), calls.end(), [](const auto& count) { return count == 1; });
}

/// Two tasks that wait for each other: hangs on one thread.
bool runs_two_at_once() {
  std::atomic<int> begun = 0;
  make_parallel(2)->run(2, [&](std::int64_t) {
    ++begun;
    while (begun < 2) {
      std::this_thread::yield();
    }
  });
  return true;
}

TEST(Fork, ChildOfAThreadWithATeam) {
  const auto parallel = make_parallel(3);
  ASSERT_TRUE(runs_each_once(*parallel));
  EXPECT_TRUE(holds_in_child([&] { return runs_each_once(*parallel) && runs_each_once(*parallel); }));
  EXPECT_TRUE(holds_in_child([] { return runs_each_once(*make_parallel(2)); }));
  EXPECT_TRUE(holds_in_child([&] {  // a grandchild
    return runs_each_once(*parallel) && holds_in_child([&] { return runs_each_once(*parallel); });
  }));
  EXPECT_TRUE(holds_in_child([] {  // a thread of the child's own has a team
    bool done = false;
    std::thread([&] { done = runs_two_at_once(); }).join();
    return done;
  }));
  EXPECT_TRUE(runs_each_once(*parallel));  // the parent goes on
}

TEST(Fork, ChildOfAThreadWithoutATeam) {
  bool held = false;
  std::thread([&] { held = holds_in_child(runs_two_at_once); }).join();
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace trit::test

// SPDX-License-Identifier: MIT
//
// How work is cut into tasks for a Parallel. This is about speed alone: a task owns its outputs, so no result
// depends on the cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>

#include "trit/parallel.h"

namespace trit {

/// Enough tasks per thread that the others can take over from a thread which loses its core for a while.
inline constexpr std::int64_t kTasksPerThread = 4;

/// The number of tasks for `units` indivisible units that cost `work` in total. A task below
/// `work_per_task` (a few microseconds) is not worth waking a thread for.
inline std::int64_t task_count(const Parallel& parallel, std::int64_t units, std::int64_t work,
                               std::int64_t work_per_task, std::int64_t tasks_per_thread = kTasksPerThread) {
  if (parallel.threads() <= 1) {
    return 1;
  }
  const std::int64_t wanted = std::min(parallel.threads() * tasks_per_thread, work / work_per_task);
  return std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(units, 1));
}

/// A part of a range.
struct Part {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t size() const { return end - begin; }
};
/// Part `index` of [0, total) cut into `parts` whose sizes differ by one at most.
inline Part part_of(std::int64_t total, std::int64_t parts, std::int64_t index) {
  const std::int64_t size = total / parts;
  const std::int64_t larger = total % parts;
  const std::int64_t begin = index * size + std::min(index, larger);
  return {begin, begin + size + (index < larger ? 1 : 0)};
}

/// Part `index` of `whole`, likewise.
inline Part part_of(Part whole, std::int64_t parts, std::int64_t index) {
  const Part part = part_of(whole.size(), parts, index);
  return {whole.begin + part.begin, whole.begin + part.end};
}

/// parallel.run, with the default floating-point environment in each task whatever `parallel` does. A
/// single task runs on the calling thread.
void run_tasks(Parallel& parallel, std::int64_t tasks, const std::function<void(std::int64_t)>& task);

/// The calling thread alone.
std::unique_ptr<Parallel> make_serial();

}  // namespace trit

// SPDX-License-Identifier: MIT
//
// What the row-wise operations share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/tasks.h"
#include "trit/error.h"

namespace trit::generic {

/// Elements per task: 5 to 10 us of any of these operations.
inline constexpr std::int64_t kRowWorkPerTask = 1 << 16;

inline void check_shape(std::string_view what, std::int64_t rows, std::int64_t columns,
                        std::int64_t min_rows) {
  if (rows < min_rows || columns < 1) {
    throw Error(std::string(what) + ": shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
                "], wanted at least [" + std::to_string(min_rows) + ", 1]");
  }
}

/// body(row) for every row.
template <typename Body>
void for_rows(Parallel& parallel, std::int64_t rows, std::int64_t columns, const Body& body) {
  if (rows == 0) {
    return;
  }
  const std::int64_t tasks = task_count(parallel, rows, rows * columns, kRowWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part part = part_of(rows, tasks, task);
    for (std::int64_t row = part.begin; row < part.end; ++row) {
      body(row);
    }
  });
}

/// body(index, first input, inputs) for each group of a row.
template <typename Body>
void for_groups(std::int64_t in_features, std::int64_t group, const Body& body) {
  for (std::int64_t g = 0; g * group < in_features; ++g) {
    body(g, g * group, std::min(group, in_features - g * group));
  }
}

}  // namespace trit::generic

// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace trit::train {

/// One of equal parts of something: what a process of a run does of a batch or of an evaluation.
struct Part {
  int index = 0, count = 1;

  /// Of `total` things, those of this part: [begin, end). Sizes differ by one at most; a part may be empty.
  std::int64_t begin(std::int64_t total) const { return total * index / count; }
  std::int64_t end(std::int64_t total) const { return total * (index + 1) / count; }
  std::int64_t size(std::int64_t total) const { return end(total) - begin(total); }
};

}  // namespace trit::train

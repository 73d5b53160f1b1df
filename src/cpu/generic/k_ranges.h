// SPDX-License-Identifier: MIT
//
// K cut into the ranges of product tiles, each with its sums of q.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tasks.h"
#include "trit/linear.h"

namespace trit::generic {

/// Whole lines of 4 inputs, the last one padded. Without group scales K is one range unless it is longer than
/// `limit`. With them a group is.
class KRanges {
 public:
  struct Range {
    Part k;
    bool begins_sum;     // else its sums are added to those of the range before
    std::int64_t group;  // 0 without group scales
    bool ends_sum;
  };

  KRanges(Parallel& parallel, const QuantizedRows& x, std::int64_t in_features, std::int64_t group,
          std::int64_t limit);

  std::int64_t count() const { return std::ssize(ranges_); }
  const Range& operator[](std::int64_t range) const { return ranges_[static_cast<std::size_t>(range)]; }
  /// Sums of q over the range, [tokens].
  const std::int32_t* sums(std::int64_t range) const {
    return sums_.empty() ? x_.q_sum : sums_.data() + range * x_.tokens;
  }

 private:
  void sum_token(std::int64_t token, std::int64_t padded);

  const QuantizedRows& x_;
  std::vector<Range> ranges_;
  std::vector<std::int32_t> sums_;  // [count][tokens], or empty where x has them
};

}  // namespace trit::generic

// SPDX-License-Identifier: MIT
#include "cpu/generic/k_ranges.h"

#include <algorithm>

#include "base/integer.h"

namespace trit::generic {
namespace {

// Inputs per task of the sums, a few microseconds.
constexpr std::int64_t kWorkPerTask = 1 << 16;

}  // namespace

KRanges::KRanges(Parallel& parallel, const QuantizedRows& x, std::int64_t in_features, std::int64_t group,
                 std::int64_t limit)
    : x_(x) {
  const std::int64_t padded = padded_in_features(in_features);
  const std::int64_t sum_inputs = group == 0 ? padded : group;
  for (std::int64_t first = 0; first < padded; first += sum_inputs) {
    const std::int64_t lines = std::min(sum_inputs, padded - first) / 4;
    const std::int64_t parts = ceil_div(lines, limit / 4);
    for (std::int64_t i = 0; i < parts; ++i) {
      const Part part = part_of(lines, parts, i);
      ranges_.push_back({.k = {first + 4 * part.begin, first + 4 * part.end},
                         .begins_sum = i == 0,
                         .group = first / sum_inputs,
                         .ends_sum = i + 1 == parts});
    }
  }
  if (count() == 1 && group == 0) {
    return;  // x.q_sum is over the one range
  }
  sums_.resize(static_cast<std::size_t>(count() * x.tokens));
  const std::int64_t tasks = task_count(parallel, x.tokens, x.tokens * in_features, kWorkPerTask);
  run_tasks(parallel, tasks, [&](std::int64_t task) {
    const Part tokens = part_of(x_.tokens, tasks, task);
    for (std::int64_t token = tokens.begin; token < tokens.end; ++token) {
      sum_token(token, padded);
    }
  });
}

void KRanges::sum_token(std::int64_t token, std::int64_t padded) {
  const std::int8_t* q = x_.q + token * padded;
  for (std::int64_t range = 0; range < count(); ++range) {
    std::int32_t sum = 0;
    for (std::int64_t k = (*this)[range].k.begin; k < (*this)[range].k.end; ++k) {
      sum += q[k];
    }
    sums_[static_cast<std::size_t>(range * x_.tokens + token)] = sum;
  }
}

}  // namespace trit::generic

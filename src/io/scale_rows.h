// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "trit/io.h"

namespace trit::io {

/// The weight scales of a ternary matrix a few rows at a time, in the same form whatever their granularity:
/// groups() of them for each row.
class ScaleRows {
 public:
  ScaleRows(const Checkpoint& source, const TensorInfo& tensor);

  /// As Checkpoint::group(): 0 without groups.
  std::int64_t group() const { return group_; }
  /// Inputs that share a scale: all of a row without groups.
  std::int64_t inputs() const { return group_ != 0 ? group_ : tensor_.shape[1]; }
  std::int64_t groups() const { return groups_of(tensor_.shape[1], group_); }
  /// [rows, groups()].
  void read(std::int64_t first_row, std::int64_t rows, std::span<float> scales) const;
  /// found(row, scales [groups()]) for all rows.
  template <typename Found>
  void for_each_row(const Found& found) const;

  /// Without groups: [1] or [N].
  std::span<const float> fixed() const { return fixed_; }

 private:
  static constexpr std::int64_t kValuesAtOnce = 1 << 16;

  const Checkpoint& source_;
  const TensorInfo& tensor_;
  std::int64_t group_;
  std::vector<float> fixed_;
};

template <typename Found>
void ScaleRows::for_each_row(const Found& found) const {
  const std::int64_t at_once = std::clamp<std::int64_t>(kValuesAtOnce / groups(), 1, tensor_.shape[0]);
  std::vector<float> scales(static_cast<std::size_t>(at_once * groups()));
  for (std::int64_t first = 0; first < tensor_.shape[0]; first += at_once) {
    const std::int64_t rows = std::min(at_once, tensor_.shape[0] - first);
    const auto part = std::span(scales).first(static_cast<std::size_t>(rows * groups()));
    read(first, rows, part);
    for (std::int64_t row = 0; row < rows; ++row) {
      found(first + row, std::span<const float>(part).subspan(static_cast<std::size_t>(row * groups()),
                                                              static_cast<std::size_t>(groups())));
    }
  }
}

/// Whether all weights of a row of packed codes in [first, last) are 0.
bool are_zeros(std::span<const std::uint8_t> codes, std::int64_t first, std::int64_t last);

/// All scales of a matrix with groups, [N, groups].
std::vector<float> all_group_scales(const Checkpoint& source, const TensorInfo& tensor);

/// Whether every scale of a matrix with groups is a float16.
bool fit_float16(const ScaleRows& scales);

}  // namespace trit::io

// SPDX-License-Identifier: MIT
#include "io/scale_rows.h"

namespace trit::io {

ScaleRows::ScaleRows(const Checkpoint& source, const TensorInfo& tensor)
    : source_(source), tensor_(tensor), group_(source.group(tensor)) {
  if (group_ == 0) {
    fixed_ = source.scale(tensor);
  }
}

void ScaleRows::read(std::int64_t first_row, std::int64_t rows, std::span<float> scales) const {
  if (group_ != 0) {
    source_.read_group_scales(tensor_, first_row, rows, scales);
  } else if (fixed_.size() == 1) {
    std::ranges::fill(scales, fixed_[0]);
  } else {
    std::copy_n(fixed_.begin() + first_row, rows, scales.begin());
  }
}

bool are_zeros(std::span<const std::uint8_t> codes, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) {
    if ((codes[static_cast<std::size_t>(i / 4)] >> (2 * (i % 4)) & 3) != 0) {
      return false;
    }
  }
  return true;
}

std::vector<float> all_group_scales(const Checkpoint& source, const TensorInfo& tensor) {
  std::vector<float> scales(
      static_cast<std::size_t>(tensor.shape[0] * groups_of(tensor.shape[1], source.group(tensor))));
  source.read_group_scales(tensor, 0, tensor.shape[0], scales);
  return scales;
}

bool fit_float16(const ScaleRows& scales) {
  bool fit = true;
  scales.for_each_row([&](std::int64_t, std::span<const float> row) {
    fit = fit && std::ranges::all_of(
                     row, [](float value) { return float16_to_float(float_to_float16(value)) == value; });
  });
  return fit;
}

}  // namespace trit::io

// SPDX-License-Identifier: MIT
#include "io/gguf_scales.h"

#include <algorithm>
#include <cmath>

#include "io/number_text.h"
#include "io/tensor_names.h"
#include "trit/error.h"

namespace trit::io {
namespace {

constexpr double kRounding = 0x1p-11;
constexpr std::uint16_t kInfinity = 0x7c00;
constexpr std::uint16_t kOne = 0x3c00;

/// [rows] whether all weights of the row are 0.
std::vector<bool> zero_rows(const Checkpoint& source, const TensorInfo& tensor) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(packed_row_bytes(tensor.shape[1])));
  std::vector<bool> zero;
  for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
    source.read_codes(tensor, row, 1, codes);
    zero.push_back(are_zeros(codes, 0, tensor.shape[1]));
  }
  return zero;
}

/// Relative error of the scale that is stored.
double error_of(std::uint16_t half, float scale) {
  const auto exact = static_cast<double>(scale);
  return std::fabs(static_cast<double>(float16_to_float(half)) - exact) / exact;
}

/// Whether float16 holds the scale as well as a rounding can.
bool is_good(std::uint16_t half, float scale) {
  return half < kInfinity && error_of(half, scale) <= kRounding;
}

std::span<const std::uint8_t> row_of(std::span<const std::uint8_t> packed, std::int64_t row,
                                     std::int64_t in_features) {
  const auto bytes = static_cast<std::size_t>(packed_row_bytes(in_features));
  return packed.subspan(static_cast<std::size_t>(row) * bytes, bytes);
}

}  // namespace

/// The scales that float16 holds badly, and the worst of them.
struct BlockScales::Loss {
  std::int64_t count = 0;
  std::int64_t of = 0;  // scales in all
  double error = -1;
  float scale = 0;
  std::string where;

  void add(std::uint16_t half, float exact, const std::string& place) {
    ++count;
    if (const double found = error_of(half, exact); found > error) {
      error = found;
      scale = exact;
      where = place;
    }
  }
};

/// Two scales in one block.
struct BlockScales::Conflict {
  std::int64_t block = 0;
  float first = 0, second = 0;
};

BlockScales::BlockScales(const WritePlan& plan, const PlannedTensor& planned, const BlockFormat& format)
    : plan_(plan),
      planned_(planned),
      format_(format),
      scales_(plan.source, *planned.tensor),
      blocks_(planned.tensor->shape[1] / format.weights) {
  Loss loss;
  if (scales_.group() == 0) {
    check_fixed(loss);
  } else {
    check_groups(loss);
  }
  plan.source.release(*planned.tensor);
  warn(loss);
}

/// The scale of every block of a row, as far as its weights are not 0. Without `codes` all of them count.
std::optional<BlockScales::Conflict> BlockScales::block_floats(std::span<const float> groups,
                                                               std::span<const std::uint8_t> codes,
                                                               std::span<float> floats) const {
  for (std::int64_t block = 0; block < blocks_; ++block) {
    const std::int64_t begin = block * format_.weights;
    const std::int64_t end = begin + format_.weights;
    float found = 0;
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t group = at / scales_.inputs();
      const std::int64_t last = std::min(end, (group + 1) * scales_.inputs());
      const float scale = groups[static_cast<std::size_t>(group)];
      if (scale != found && (codes.empty() || !are_zeros(codes, at, last))) {
        if (found != 0) {
          return Conflict{block, found, scale};
        }
        found = scale;
      }
      at = last;
    }
    floats[static_cast<std::size_t>(block)] =
        found != 0 ? found : groups[static_cast<std::size_t>(begin / scales_.inputs())];
  }
  return std::nullopt;
}

void BlockScales::check_groups(Loss& loss) const {
  const TensorInfo& tensor = *planned_.tensor;
  std::vector<float> floats(static_cast<std::size_t>(blocks_));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(packed_row_bytes(tensor.shape[1])));
  scales_.for_each_row([&](std::int64_t row, std::span<const float> groups) {
    loss.of += blocks_;
    const bool fits = !block_floats(groups, {}, floats) && std::ranges::all_of(floats, [](float scale) {
      return is_good(float_to_float16(scale), scale);
    });
    if (fits) {
      return;
    }
    // Rare, and only then the codes matter.
    plan_.source.read_codes(tensor, row, 1, codes);
    if (const auto conflict = block_floats(groups, codes, floats)) {
      throw Error("tensor " + quoted_name(planned_.name) + ": row " + std::to_string(row) + ", columns " +
                  std::to_string(conflict->block * format_.weights) + " to " +
                  std::to_string((conflict->block + 1) * format_.weights - 1) + " have the scales " +
                  number_text(conflict->first) + " and " + number_text(conflict->second) + ", a block of " +
                  std::string(format_.name) +
                  " has one. Formats that can hold it: " + formats_that_hold(tensor, {}, scales_.group()));
    }
    for (std::int64_t block = 0; block < blocks_; ++block) {
      const float scale = floats[static_cast<std::size_t>(block)];
      const std::uint16_t half = float_to_float16(scale);
      const std::int64_t begin = block * format_.weights;
      if (is_good(half, scale) || are_zeros(codes, begin, begin + format_.weights)) {
        continue;
      }
      const std::string where = "row " + std::to_string(row) + ", block " + std::to_string(block);
      if (half == 0 || half >= kInfinity) {
        fail(scale, "of " + where);
      }
      loss.add(half, scale, where);
    }
  });
}

void BlockScales::check_fixed(Loss& loss) {
  const std::span<const float> scale = scales_.fixed();
  loss.of = static_cast<std::int64_t>(scale.size());
  std::vector<bool> zero;  // rows, or the whole matrix; known where it matters
  for (std::size_t i = 0; i < scale.size(); ++i) {
    std::uint16_t half = float_to_float16(scale[i]);
    if (!is_good(half, scale[i])) {
      if (zero.empty()) {
        zero = zero_rows(plan_.source, *planned_.tensor);
        if (scale.size() == 1) {
          zero = {std::ranges::all_of(zero, [](bool row) { return row; })};
        }
      }
      if (zero[i]) {
        half = kOne;  // the scale of zeros means nothing
      } else if (half == 0 || half >= kInfinity) {
        fail(scale[i], std::to_string(i));
      } else {
        loss.add(half, scale[i], "row " + std::to_string(i));
      }
    }
    fixed_.push_back(half);
  }
}

void BlockScales::fail(float scale, const std::string& where) const {
  throw Error("tensor " + quoted_name(planned_.name) + ": scale " + where + " is " + number_text(scale) +
              ", which float16 rounds to " + (scale < 1 ? "0" : "infinity") +
              "; GGUF keeps scales as float16. Formats that can hold it: " +
              formats_that_hold(*planned_.tensor,
                                scales_.group() == 0 ? scales_.fixed() : std::span(&scale, 1),
                                scales_.group()));
}

void BlockScales::warn(const Loss& loss) const {
  if (loss.count == 0 || !plan_.options.warn) {
    return;
  }
  const std::string what = scales_.group() == 0 ? "rows" : "blocks";
  plan_.options.warn("tensor " + quoted_name(planned_.name) + ": the scale " + number_text(loss.scale) +
                     " is below float16's normal range and becomes " +
                     number_text(float16_to_float(float_to_float16(loss.scale))) + ", " +
                     number_text(static_cast<float>(100 * loss.error)) + " % off" +
                     (loss.of == 1 ? ""
                                   : " in " + loss.where + ", the worst of " + std::to_string(loss.count) +
                                         " such " + what + " of " + std::to_string(loss.of)));
}

void BlockScales::read(std::int64_t first_row, std::int64_t rows, std::span<const std::uint8_t> packed,
                       std::span<std::uint16_t> d) const {
  const std::int64_t inputs = planned_.tensor->shape[1];
  if (scales_.group() == 0) {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::fill_n(d.begin() + row * blocks_, blocks_,
                  fixed_[fixed_.size() == 1 ? 0 : static_cast<std::size_t>(first_row + row)]);
    }
    return;
  }
  std::vector<float> groups(static_cast<std::size_t>(rows * scales_.groups()));
  std::vector<float> floats(static_cast<std::size_t>(blocks_));
  scales_.read(first_row, rows, groups);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::span<const std::uint8_t> codes = row_of(packed, row, inputs);
    const auto of_row = std::span<const float>(groups).subspan(
        static_cast<std::size_t>(row * scales_.groups()), static_cast<std::size_t>(scales_.groups()));
    if (block_floats(of_row, {}, floats)) {
      block_floats(of_row, codes, floats);  // a group of zeros beside another; both were checked
    }
    for (std::int64_t block = 0; block < blocks_; ++block) {
      const float scale = floats[static_cast<std::size_t>(block)];
      const std::uint16_t half = float_to_float16(scale);
      const std::int64_t begin = block * format_.weights;
      const bool keep = is_good(half, scale) || !are_zeros(codes, begin, begin + format_.weights);
      d[static_cast<std::size_t>(row * blocks_ + block)] = keep ? half : kOne;
    }
  }
}

}  // namespace trit::io

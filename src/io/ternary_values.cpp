// SPDX-License-Identifier: MIT
//
// Float matrices whose values are ternary: -a, 0 and +a in every group of inputs of a row. The size of the
// groups is found from the columns where |value| changes: a border lies between the last column with the old
// value and the first with the new one, zeros aside.
#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <optional>

#include "io/dtype.h"
#include "io/number_text.h"
#include "io/scale_rows.h"
#include "io/tensor_names.h"
#include "trit/error.h"
#include "trit/io.h"

namespace trit::io {
namespace {

/// Two values that no group may have, or one that is not finite.
struct Problem {
  std::int64_t row = 0, column = 0;
  std::int64_t group = 0;  // of this size both lie in one; 0: not finite
  float value = 0, before = 0;

  std::string text() const {
    if (group == 0) {
      return "row " + std::to_string(row) + ", column " + std::to_string(column) + " is " +
             number_text(value) + ", wanted a finite value";
    }
    const std::int64_t first = column / group * group;
    return "row " + std::to_string(row) + ", columns " + std::to_string(first) + " to " +
           std::to_string(first + group - 1) + " have values of " + number_text(before) + " and " +
           number_text(value) + " (column " + std::to_string(column) +
           "), wanted -a, 0 and a alone in a group of " + std::to_string(group);
  }
};

/// What fits the rows so far.
struct Fit {
  std::int64_t group = 0;  // the largest size of groups, which halves as long as a change needs it
  bool fixed = false;      // given by the caller: it does not halve
  bool per_row = true;     // no |value| changes in a row
  bool per_tensor = true;  // nor from row to row
  float value = 0;         // of the rows, as long as there is one
};

/// Takes a row into account.
std::optional<Problem> add_row(Fit& fit, std::int64_t row, std::span<const float> values) {
  std::int64_t last = -1;  // column of the last value that is not 0
  float value = 0;
  for (std::int64_t column = 0; column < static_cast<std::int64_t>(values.size()); ++column) {
    const float found = std::fabs(values[static_cast<std::size_t>(column)]);
    if (found == 0) {
      continue;
    }
    if (!std::isfinite(found)) {
      return Problem{row, column, 0, values[static_cast<std::size_t>(column)], 0};
    }
    if (last >= 0 && found != value) {
      fit.per_row = fit.per_tensor = false;
      const std::int64_t group = fit.group;
      while (fit.group >= kGroupStep && column / fit.group == last / fit.group) {
        fit.group = fit.fixed ? 0 : fit.group / 2;
      }
      if (fit.group < kGroupStep) {
        return Problem{row, column, fit.fixed ? group : kGroupStep, found, value};
      }
    }
    last = column;
    value = found;
  }
  fit.per_tensor = fit.per_tensor && (value == 0 || fit.value == 0 || value == fit.value);
  fit.value = value == 0 ? fit.value : value;
  return std::nullopt;
}

class TernaryValuesCheckpoint final : public Checkpoint {
 public:
  TernaryValuesCheckpoint(const Checkpoint& source, std::int64_t group) : source_(source) {
    if (group != 0 && !is_group_size(group)) {
      throw Error("groups of " + std::to_string(group) + " inputs, wanted a multiple of " +
                  std::to_string(kGroupStep));
    }
    describe_as(source);
    description_ += ", ternary values in float matrices";
    const LinearWeights linear = find_linear_weights(source);
    for (const TensorInfo& tensor : source.tensors()) {
      TensorInfo& added = tensors_.emplace_back(tensor);
      added.index = fits_.size();
      fits_.emplace_back();
      const bool is_linear = !linear.why_not.contains(tensor.name);
      if (!is_candidate(tensor, is_linear)) {
        continue;
      }
      const std::int64_t inputs = tensor.shape.back();
      const auto& shape =
          shapes_.emplace_back(std::array{checked_numel(tensor.shape).value_or(0) / inputs, inputs});
      fits_.back() = fit_of(tensor, shape[0], group, is_linear);
      if (fits_.back()) {
        added.kind = TensorKind::ternary;
        added.type = "float-values";
        added.stack = tensor.shape.size() == 2 ? std::span<const std::int64_t>() : tensor.shape;
        added.shape = shape;
      }
    }
  }

  std::int64_t group(const TensorInfo& tensor) const override {
    const std::optional<Fit>& fit = fits_[tensor.index];
    return !fit ? source_.group(original(tensor)) : fit->per_row ? 0 : fit->group;
  }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    const std::optional<Fit>& fit = fits_[tensor.index];
    if (!fit) {
      return source_.scale(original(tensor));
    }
    if (fit->per_tensor) {
      return {fit->value == 0 ? 1 : fit->value};
    }
    return all_group_scales(*this, tensor);
  }

  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override {
    if (!fits_[tensor.index]) {
      source_.read_group_scales(original(tensor), first_row, rows, scales);
      return;
    }
    const std::int64_t inputs = group(tensor) == 0 ? tensor.shape[1] : group(tensor);
    std::size_t at = 0;
    for_rows(tensor, first_row, rows, [&](std::span<const float> values) {
      for (std::size_t begin = 0; begin < values.size(); begin += static_cast<std::size_t>(inputs)) {
        const auto part =
            values.subspan(begin, std::min(static_cast<std::size_t>(inputs), values.size() - begin));
        const auto found = std::ranges::find_if(part, [](float value) { return value != 0; });
        scales[at++] = found == part.end() ? 1 : std::fabs(*found);
      }
    });
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override {
    if (!fits_[tensor.index]) {
      source_.read_codes(original(tensor), first_row, rows, codes);
      return;
    }
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
    std::vector<std::int8_t> t(static_cast<std::size_t>(tensor.shape[1]));
    for_rows(tensor, first_row, rows, [&](std::span<const float> values) {
      std::ranges::transform(values, t.begin(), [](float value) {
        return static_cast<std::int8_t>((value > 0 ? 1 : 0) - (value < 0 ? 1 : 0));
      });
      pack_row(t, codes.first(row_bytes));
      codes = codes.subspan(row_bytes);
    });
  }

  void read_elements(const TensorInfo& tensor, std::int64_t first,
                     std::span<std::byte> bytes) const override {
    source_.read_elements(original(tensor), first, bytes);
  }
  void release(const TensorInfo& tensor) const override { source_.release(original(tensor)); }

 private:
  const TensorInfo& original(const TensorInfo& tensor) const { return source_.tensors()[tensor.index]; }

  /// Matrices "<layer>.weight", and stacks of matrices by any name; those of linear layers however small.
  static bool is_candidate(const TensorInfo& tensor, bool is_linear) {
    const std::size_t dimensions = tensor.shape.size();
    return tensor.kind == TensorKind::floating && checked_numel(tensor.shape).value_or(0) != 0 &&
           (dimensions == 2 ? tensor.name.ends_with(".weight") : dimensions > 2) &&
           (tensor.shape.back() >= kGroupStep || is_linear);
  }

  /// found(values of a row) for rows of a float matrix.
  template <typename Found>
  void for_rows(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                const Found& found) const {
    std::vector<float> values(static_cast<std::size_t>(tensor.shape[1]));
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      source_.read_floats(original(tensor), row * tensor.shape[1], values);
      found(std::span<const float>(values));
    }
  }

  /// Nothing for a matrix that is not ternary; Error if it is a weight of a linear layer.
  std::optional<Fit> fit_of(const TensorInfo& tensor, std::int64_t rows, std::int64_t group,
                            bool is_linear) const {
    const std::int64_t inputs = tensor.shape.back();
    const auto refused = [&](const std::string& why) -> std::optional<Fit> {
      source_.release(tensor);
      if (is_linear) {
        throw Error(path_.string() + ": tensor " + quoted_name(tensor.name) + why);
      }
      return std::nullopt;
    };
    if (tensor.type == "F64") {  // rounded when it is read, so that different values may look equal
      return refused(" is F64, wanted ternary values in F32, F16 or BF16");
    }
    Fit fit{.group = group != 0 ? group : kGroupStep, .fixed = group != 0};
    while (!fit.fixed && fit.group * 2 < inputs) {
      fit.group *= 2;
    }
    std::vector<float> values(static_cast<std::size_t>(inputs));
    for (std::int64_t row = 0; row < rows; ++row) {
      source_.read_floats(tensor, row * inputs, values);
      if (const auto problem = add_row(fit, row, values)) {
        return refused(" is not ternary: " + problem->text());
      }
    }
    source_.release(tensor);
    return fit;
  }

  const Checkpoint& source_;
  std::deque<std::array<std::int64_t, 2>> shapes_;
  std::vector<std::optional<Fit>> fits_;  // by TensorInfo::index, of those that are ternary
};

}  // namespace

std::unique_ptr<Checkpoint> ternary_values(const Checkpoint& source, std::int64_t group) {
  return std::make_unique<TernaryValuesCheckpoint>(source, group);
}

}  // namespace trit::io

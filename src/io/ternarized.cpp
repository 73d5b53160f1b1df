// SPDX-License-Identifier: MIT
//
// A checkpoint whose float matrices read as ternary ones: absmean and ternarize (quantize.h), row by row, so
// that a model larger than the memory can be packed. The scale of a tensor takes a pass over it; it is kept.
#include <cmath>
#include <map>
#include <mutex>

#include "io/tensor_names.h"
#include "trit/error.h"
#include "trit/io.h"
#include "trit/quantize.h"

namespace trit::io {
namespace {

class TernarizedCheckpoint final : public Checkpoint {
 public:
  TernarizedCheckpoint(const Checkpoint& source, ScaleGranularity granularity,
                       const std::function<bool(std::string_view)>& filter)
      : source_(source), granularity_(granularity) {
    describe_as(source);
    description_ += ", float matrices made ternary";
    for (const TensorInfo& tensor : source.tensors()) {
      TensorInfo& added = tensors_.emplace_back(tensor);
      const bool matrix = tensor.kind == TensorKind::floating && tensor.shape.size() == 2 &&
                          tensor.shape[0] > 0 && tensor.shape[1] > 0;
      if (matrix && (!filter || filter(tensor.name))) {
        added.kind = TensorKind::ternary;
        added.type = "float";
      }
      added.index = tensors_.size() - 1;
    }
  }

  std::vector<float> scale(const TensorInfo& tensor) const override {
    if (original(tensor).kind == TensorKind::ternary) {
      return source_.scale(original(tensor));
    }
    const std::lock_guard lock(mutex_);
    const auto [at, added] = scales_.try_emplace(tensor.index);
    if (added) {
      try {
        at->second = compute_scale(tensor);
      } catch (...) {
        scales_.erase(at);
        throw;
      }
    }
    return at->second;
  }

  std::int64_t group(const TensorInfo& tensor) const override {
    return original(tensor).kind == TensorKind::ternary ? source_.group(original(tensor)) : 0;
  }

  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override {
    source_.read_group_scales(original(tensor), first_row, rows, scales);
  }

  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override {
    if (original(tensor).kind == TensorKind::ternary) {
      source_.read_codes(original(tensor), first_row, rows, codes);
      return;
    }
    const std::vector<float> beta = scale(tensor);
    const auto row_bytes = static_cast<std::size_t>(packed_row_bytes(tensor.shape[1]));
    std::vector<float> values(static_cast<std::size_t>(tensor.shape[1]));
    std::vector<std::int8_t> t(values.size());
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t row = first_row + i;
      read_row(tensor, row, values);
      ternarize_row(values, beta[beta.size() == 1 ? 0 : static_cast<std::size_t>(row)], t);
      pack_row(t, codes.subspan(static_cast<std::size_t>(i) * row_bytes, row_bytes));
    }
  }

  void read_elements(const TensorInfo& tensor, std::int64_t first,
                     std::span<std::byte> bytes) const override {
    source_.read_elements(original(tensor), first, bytes);
  }
  void release(const TensorInfo& tensor) const override { source_.release(original(tensor)); }

 private:
  const TensorInfo& original(const TensorInfo& tensor) const { return source_.tensors()[tensor.index]; }

  /// Throws Error on a NaN or an infinity.
  void read_row(const TensorInfo& tensor, std::int64_t row, std::span<float> values) const {
    source_.read_floats(original(tensor), row * tensor.shape[1], values);
    for (std::size_t column = 0; column < values.size(); ++column) {
      if (!std::isfinite(values[column])) {
        throw Error(path_.string() + ": tensor " + quoted_name(tensor.name) + ": the weight at row " +
                    std::to_string(row) + ", column " + std::to_string(column) + " is " +
                    std::to_string(values[column]) + ", wanted finite values");
      }
    }
  }

  std::vector<float> compute_scale(const TensorInfo& tensor) const {
    std::vector<float> values(static_cast<std::size_t>(tensor.shape[1]));
    std::vector<float> row_sums(static_cast<std::size_t>(tensor.shape[0]));
    for (std::size_t row = 0; row < row_sums.size(); ++row) {
      read_row(tensor, static_cast<std::int64_t>(row), values);
      for (float& value : values) {
        value = std::fabs(value);
      }
      row_sums[row] = lane_sum(std::span<const float>(values));
    }
    if (granularity_ == ScaleGranularity::tensor) {
      return {absmean_of_sums(row_sums, tensor.shape[1])};
    }
    std::vector<float> scale;
    for (const float sum : row_sums) {
      scale.push_back(beta_of(sum / static_cast<float>(tensor.shape[1])));
    }
    return scale;
  }

  const Checkpoint& source_;
  ScaleGranularity granularity_;
  mutable std::mutex mutex_;
  mutable std::map<std::size_t, std::vector<float>> scales_;
};

}  // namespace

std::unique_ptr<Checkpoint> ternarized(const Checkpoint& source, ScaleGranularity granularity,
                                       const std::function<bool(std::string_view name)>& filter) {
  return std::make_unique<TernarizedCheckpoint>(source, granularity, filter);
}

}  // namespace trit::io

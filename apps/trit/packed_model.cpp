// SPDX-License-Identifier: MIT
#include "packed_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>

#include "output.h"
#include "trit/error.h"
#include "trit/quantize.h"

namespace trit::cli {
namespace {

// Elements of a task: 50 to 100 us of either pass. A round of tasks is a few megabytes, so that progress and
// interrupts are handled often enough.
constexpr std::int64_t kElementsPerTask = std::int64_t{1} << 18;
constexpr std::int64_t kTasksPerRound = 64;

// Throws trit::Error, naming the tensor and the place, at the first NaN or infinity. A row of a matrix, or
// (row < 0) a part of a vector from `first` on.
void check_finite(std::span<const float> values, std::int64_t row, std::int64_t first,
                  std::string_view name) {
  const auto bad = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
  if (bad == values.end()) {
    return;
  }
  const std::int64_t at = first + (bad - values.begin());
  throw Error(fmt::format("tensor {}: the value at {} is {}, wanted finite values", printable(name),
                          row < 0 ? fmt::format("index {}", at) : fmt::format("row {}, column {}", row, at),
                          *bad));
}

}  // namespace

PackedModel::PackedModel(const io::Checkpoint& source, const PackPlan& plan, const apps::Scales& scales,
                         std::function<void(std::uint64_t bytes)> read)
    : source_(source), plan_(plan), kind_(scales), read_(std::move(read)) {
  describe_as(source);
  metadata_ = {plan.metadata.begin(), plan.metadata.end()};
  gguf_pairs_.clear();
  for (const io::TensorInfo& tensor : source.tensors()) {
    io::TensorInfo& added = tensors_.emplace_back(tensor);
    if (is_packed(tensor)) {
      added.kind = io::TensorKind::ternary;
    } else if (is_converted(tensor)) {
      added.type = "F32";
    }
    added.index = tensors_.size() - 1;
  }
}

bool PackedModel::is_packed(const io::TensorInfo& tensor) const { return plan_.packed.contains(tensor.name); }
bool PackedModel::is_converted(const io::TensorInfo& tensor) const {
  return plan_.converted.contains(tensor.name);
}

std::uint64_t PackedModel::bytes_to_read() const {
  std::uint64_t bytes = 0;
  for (const io::TensorInfo& tensor : tensors_) {
    bytes += tensor.stored_bytes * (is_packed(tensor) ? 2 : 1);
  }
  return bytes;
}

void PackedModel::for_rows(
    const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
    const std::function<void(std::span<const float> values, std::int64_t row)>& body) const {
  const std::int64_t columns = tensor.shape[1];
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kElementsPerTask / columns);
  const std::int64_t rows_per_round = rows_per_task * kTasksPerRound;
  const std::uint64_t row_bytes = tensor.stored_bytes / static_cast<std::uint64_t>(tensor.shape[0]);
  for (std::int64_t begin = first_row; begin < first_row + rows; begin += rows_per_round) {
    const std::int64_t end = std::min(begin + rows_per_round, first_row + rows);
    const std::int64_t tasks = (end - begin + rows_per_task - 1) / rows_per_task;
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(tasks));
    parallel_->run(tasks, [&](std::int64_t task) {
      try {
        std::vector<float> values(static_cast<std::size_t>(columns));
        const std::int64_t from = begin + task * rows_per_task;
        for (std::int64_t row = from; row < std::min(from + rows_per_task, end); ++row) {
          source_.read_floats(original(tensor), row * columns, values);
          check_finite(values, row, 0, tensor.name);
          body(values, row);
        }
      } catch (...) {
        errors[static_cast<std::size_t>(task)] = std::current_exception();
      }
    });
    for (const std::exception_ptr& error : errors) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
    read_(row_bytes * static_cast<std::uint64_t>(end - begin));
  }
}

std::vector<float> PackedModel::compute_scale(const io::TensorInfo& tensor) const {
  const std::int64_t columns = tensor.shape[1];
  const std::int64_t groups = groups_of(columns, kind_.group);
  const bool per_tensor = kind_.granularity == ScaleGranularity::tensor;
  std::vector<float> sums(static_cast<std::size_t>(tensor.shape[0] * groups));
  for_rows(tensor, 0, tensor.shape[0], [&](std::span<const float> values, std::int64_t row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::span<const float> part = group_of(values, g);
      const float sum = abs_sum_row(kernels_, part);
      sums[static_cast<std::size_t>(row * groups + g)] =
          per_tensor ? sum : beta_of(sum / static_cast<float>(part.size()));
    }
  });
  source_.release(original(tensor));
  if (!per_tensor) {
    return sums;
  }
  const DefaultFloatingPoint environment;
  return {absmean_of_sums(sums, tensor.shape[1])};
}

std::span<const float> PackedModel::group_of(std::span<const float> row, std::int64_t g) const {
  if (kind_.group == 0) {
    return row;
  }
  const auto first = static_cast<std::size_t>(g * kind_.group);
  return row.subspan(first, std::min(static_cast<std::size_t>(kind_.group), row.size() - first));
}

std::int64_t PackedModel::group(const io::TensorInfo& tensor) const {
  return is_packed(tensor) ? kind_.group : source_.group(original(tensor));
}

void PackedModel::read_group_scales(const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                                    std::span<float> scales) const {
  if (is_packed(tensor)) {
    const std::vector<float>& all = computed_scale(tensor);
    const std::int64_t groups = groups_of(tensor.shape[1], kind_.group);
    std::ranges::copy(std::span(all).subspan(static_cast<std::size_t>(first_row * groups),
                                             static_cast<std::size_t>(rows * groups)),
                      scales.begin());
    return;
  }
  source_.read_group_scales(original(tensor), first_row, rows, scales);
}

std::vector<float> PackedModel::scale(const io::TensorInfo& tensor) const {
  return is_packed(tensor) ? computed_scale(tensor) : source_.scale(original(tensor));
}

const std::vector<float>& PackedModel::computed_scale(const io::TensorInfo& tensor) const {
  auto found = scales_.find(tensor.index);
  if (found == scales_.end()) {
    std::vector<float> computed = compute_scale(tensor);
    // The sum of finite |w| can overflow float32.
    check_finite(computed, -1, 0, std::string(tensor.name) + "_scale");
    found = scales_.emplace(tensor.index, std::move(computed)).first;
  }
  return found->second;
}

void PackedModel::read_codes(const io::TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                             std::span<std::uint8_t> codes) const {
  if (!is_packed(tensor)) {
    source_.read_codes(original(tensor), first_row, rows, codes);
    read_(tensor.stored_bytes / static_cast<std::uint64_t>(tensor.shape[0]) *
          static_cast<std::uint64_t>(rows));
    return;
  }
  const std::vector<float>& beta = computed_scale(tensor);
  const bool per_tensor = kind_.granularity == ScaleGranularity::tensor;
  const std::int64_t row_bytes = packed_row_bytes(tensor.shape[1]);
  const std::int64_t groups = groups_of(tensor.shape[1], kind_.group);
  for_rows(tensor, first_row, rows, [&](std::span<const float> values, std::int64_t row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::span<const float> part = group_of(values, g);
      const float inverse = 1.0F / beta[per_tensor ? 0 : static_cast<std::size_t>(row * groups + g)];
      const std::int64_t at = (row - first_row) * row_bytes + g * kind_.group / 4;
      ternarize_pack_row(kernels_, part, inverse,
                         codes.subspan(static_cast<std::size_t>(at),
                                       static_cast<std::size_t>(packed_row_bytes(std::ssize(part)))));
    }
  });
}

void PackedModel::read_elements(const io::TensorInfo& tensor, std::int64_t first,
                                std::span<std::byte> bytes) const {
  if (!is_converted(tensor)) {
    source_.read_elements(original(tensor), first, bytes);
  } else {
    std::vector<float> values(bytes.size() / sizeof(float));
    source_.read_floats(original(tensor), first, values);
    check_finite(values, -1, first, tensor.name);
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  read_(bytes.size());
}

void PackedModel::release(const io::TensorInfo& tensor) const { source_.release(original(tensor)); }

}  // namespace trit::cli

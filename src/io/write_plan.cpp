// SPDX-License-Identifier: MIT
#include "io/write_plan.h"

#include <algorithm>
#include <numeric>

#include "io/checksum.h"
#include "io/codecs/blocks.h"
#include "io/dtype.h"
#include "io/gguf.h"
#include "io/safetensors_checkpoint.h"

namespace trit::io {
namespace {

constexpr std::int64_t kReadBytes = std::int64_t{1} << 20;

}  // namespace

const PlannedTensor* WritePlan::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors, name, {}, &PlannedTensor::name);
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

Progress::Progress(const WritePlan& plan) : report_(plan.options.progress) {
  for (const PlannedTensor& planned : plan.tensors) {
    total_ += planned.tensor->stored_bytes;
  }
  add(0);
}

void Progress::add(std::uint64_t bytes) {
  done_ = std::min(done_ + bytes, total_);
  if (report_) {
    report_(done_, total_);
  }
}

std::int64_t common_group(const WritePlan& plan) {
  std::int64_t group = 0;
  for (const PlannedTensor& planned : plan.tensors) {
    if (planned.tensor->kind == TensorKind::ternary) {
      group = std::gcd(group, plan.source.group(*planned.tensor));
      plan.source.release(*planned.tensor);
    }
  }
  return group;
}

std::int64_t rows_per_read(const TensorInfo& tensor) {
  return std::clamp<std::int64_t>(kReadBytes / packed_row_bytes(tensor.shape[1]), 1, tensor.shape[0]);
}

Elements elements_of(const TensorInfo& tensor) {
  if (tensor.kind == TensorKind::blocks || tensor.kind == TensorKind::ternary) {
    return {static_cast<std::int64_t>(tensor.stored_bytes), 8};
  }
  return {checked_numel(tensor.shape).value_or(0), static_cast<std::int64_t>(dtype_bits(tensor.type))};
}

void copy_elements(const WritePlan& plan, const TensorInfo& tensor, const Sink& sink, Progress& progress) {
  const Elements elements = elements_of(tensor);
  const std::int64_t count = elements.count;
  // A multiple of 8, so that parts begin at a byte whatever the element.
  const std::int64_t at_once = std::min(kReadBytes / elements.bits * 8, count);
  std::vector<std::byte> buffer(static_cast<std::size_t>(elements.bytes(at_once)));
  for (std::int64_t first = 0; first < count; first += at_once) {
    const auto bytes =
        std::span(buffer).first(static_cast<std::size_t>(elements.bytes(std::min(at_once, count - first))));
    plan.source.read_elements(tensor, first, bytes);
    sink(bytes);
    progress.add(bytes.size());
  }
  plan.source.release(tensor);
}

void for_each_rows(const Checkpoint& source, const TensorInfo& tensor, const FoundRows& found) {
  const std::int64_t row_bytes = packed_row_bytes(tensor.shape[1]);
  const std::int64_t at_once = rows_per_read(tensor);
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(at_once * row_bytes));
  for (std::int64_t first = 0; first < tensor.shape[0]; first += at_once) {
    const std::int64_t rows = std::min(at_once, tensor.shape[0] - first);
    const auto codes = std::span(buffer).first(static_cast<std::size_t>(rows * row_bytes));
    source.read_codes(tensor, first, rows, codes);
    found(codes, first, rows);
  }
  source.release(tensor);
}

void for_each_rows(const WritePlan& plan, const TensorInfo& tensor, Progress& progress,
                   const FoundRows& found) {
  const std::uint64_t row_bytes = tensor.stored_bytes / static_cast<std::uint64_t>(tensor.shape[0]);
  for_each_rows(plan.source, tensor,
                [&](std::span<const std::uint8_t> codes, std::int64_t first, std::int64_t rows) {
                  found(codes, first, rows);
                  progress.add(row_bytes * static_cast<std::uint64_t>(rows));
                });
}

bool is_own_form_key(std::string_view key) {
  return key == "trit.version" || key == "trit.layout" || key == "trit.scale" || key == kGroupKey ||
         key == kChecksumKey || key == gguf::kBlockFormatKey || key.starts_with("trit.in_features.");
}

std::string formats_that_hold(const TensorInfo& tensor, std::span<const float> scale, std::int64_t group) {
  std::string text = "trit";
  if (group == 0 && scale.size() == 1 && tensor.shape[0] % 4 == 0) {
    text += ", hf";
  }
  // A scale that becomes 0 or infinite in float16 fits no block.
  const bool half = std::all_of(scale.begin(), scale.end(), [](float value) {
    const std::uint16_t bits = float_to_float16(value);
    return bits != 0 && bits < 0x7c00U;
  });
  for (const BlockFormat* format : block_formats()) {
    if (half && tensor.shape[1] % format->weights == 0 && group % format->weights == 0) {
      text += ", gguf with " + std::string(format->option);
    }
  }
  return text;
}

}  // namespace trit::io
